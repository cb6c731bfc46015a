"""Ways out that were published for other evaluators and sandboxes of Python, each as an attempt on a formula."""

from __future__ import annotations

PUBLISHED: tuple[tuple[str, str], ...] = (
    ("RestrictedPython, CVE-2023-37271", "[g.gi_frame for g in [(i for i in [1])]][0].f_globals"),
    ("RestrictedPython, CVE-2023-37271", "(i for i in [1]).gi_code.co_consts"),
    ("RestrictedPython, CVE-2023-41039", "'{0.__class__.__mro__}'.format(x)"),
    ("RestrictedPython, CVE-2023-41039", "'{a.__class__}'.format_map({'a': x})"),
    ("Jinja2, CVE-2016-10745", "'{a.__globals__}'.format(a=np.vectorize.__init__)"),
    ("Jinja2, CVE-2019-10906", "'{x.__class__.__base__}'.format_map({'x': 1})"),
    ("Jinja2, CVE-2024-56326", "list(map('{0.__class__}'.format, [1]))"),
    ("Jinja2, CVE-2025-27516", "getattr('{0.__class__}', 'format')(1)"),
    ("asteval, CVE-2025-24359", "f'{x.__class__.__init__.__objclass__!r}'"),
    ("asteval, GHSA-vp47-9734-prjw", "(lambda: 1).__code__.replace"),
    ("asteval, lmfit/asteval#32", "type('A', (), {'__getitem__': abs})"),
    ("asteval, lmfit/asteval#86", "[].append.__reduce__()[0]"),
    ("smolagents, huggingface/smolagents#2271", "'{0.__class__.__bases__[0].__subclasses__}'.format('a')"),
    ("the walk over all classes", "[c for c in ''.__class__.__base__.__subclasses__() if c.__name__ == '_wrap_close']"),
    ("the walk over all classes", "(3).__class__.__base__.__subclasses__()"),
    ("a name made of texts", "getattr((), '__cl' + 'ass__')"),
    ("a function's module", "np.vectorize.__init__.__globals__['np'].lib"),
    ("a module's loader", "np.__loader__.load_module"),
    ("a method's self", "abs.__self__"),
    ("a method's self", "[].append.__self__.__class__"),
    ("numpy's own files", "np.fromfile('/dev/null')"),
    ("numpy's own memory", "np.ndarray((1,), buffer=x.data)"),
    ("numpy's own foreign functions", "np.ctypeslib.load_library"),
    ("numpy's own pickles", "np.array([{}], dtype=object).dumps()"),
)
"""Where it was published or how it is known, and the attempt."""
