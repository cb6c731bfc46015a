"""Where modules come from, what a decorator or a base class brings, and switches that let foreign code run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from safe_triton.audit.pycode import check_python, fold, paths, sinks
from tests.unit.audit.pycode.cases import model

INITIALIZE = (
    (
        "weights of an address",
        "import torch\ntorch.hub.load_state_dict_from_url('https://a/b.pt')",
        "py-unsafe-deserialize",
    ),
    ("library by item", "import ctypes\nctypes.cdll['libc.so.6'].system(b'id')", "py-native-code"),
    ("log over the network", "import logging.handlers as h\nh.SysLogHandler(('x', 514))", "py-network-access"),
    ("separator", "open(os.sep + 'etc' + os.sep + 'shadow')", "py-file-access"),
    ("raw file", "io.FileIO('/etc/passwd')", "py-file-access"),
    ("lambda that nobody calls", "self.f = lambda s: os.system(s)", "py-shell-exec"),
    ("path extended", "sys.path.extend(['/data/x'])", "py-dynamic-import"),
    ("path added to", "sys.path += ['/mnt/shared']", "py-dynamic-import"),
    ("path replaced", "sys.path = ['/tmp/evil'] + sys.path", "py-dynamic-import"),
    ("path's slice", "sys.path[:0] = ['/tmp/a']", "py-dynamic-import"),
    ("path two up", "sys.path.append(os.path.join(os.path.dirname(__file__), '..', '..'))", "py-dynamic-import"),
    ("import hook", "sys.meta_path.append(object())", "py-dynamic-import"),
    ("plugins", "from importlib.metadata import entry_points\nentry_points()", "py-dynamic-import"),
    ("switch", "os.environ['HF_DATASETS_TRUST_REMOTE_CODE'] = '1'", "py-trust-remote-code"),
    ("switch of a choice", "os.environ['TRUST_REMOTE_CODE'] = '1' if x else '0'", "py-trust-remote-code"),
    ("array file", "np.lib.npyio.NpzFile('a', False, True)", "py-unsafe-deserialize"),
    ("hub", "import torch\ntorch.hub.load('a/b', 'm')", "py-trust-remote-code"),
    ("pip as a module", "import runpy\nrunpy.run_module('pip')", "py-pip-install"),
    ("easy_install", "os.system('easy_install x')", "py-pip-install"),
    ("nemo", "import nemo.collections.asr as a\na.models.ASRModel.restore_from('/m.nemo')", "py-unsafe-deserialize"),
    ("subclass", "import pickle\nclass U(pickle.Unpickler): pass\nU(open('m', 'rb')).load()", "py-unsafe-deserialize"),
    ("reduced", "import functools\nfunctools.reduce(getattr, ['path', 'os', 'system'], os)('id')", "py-shell-exec"),
    (
        "reduced from a text",
        "import functools as f\nf.reduce(getattr, 'path.os'.split('.'), os).popen('id')",
        "py-shell-exec",
    ),
    (
        "reduced by a lambda",
        "import functools as f\nf.reduce(lambda o, n: getattr(o, n), ('system',), os)('a')",
        "py-shell-exec",
    ),
    (
        "reduced by items",
        "import functools as f, operator as o\nf.reduce(o.getitem, [], os).system('a')",
        "py-shell-exec",
    ),
    (
        "reduced letters",
        "import functools as f, operator as o\ngetattr(os, f.reduce(o.add, ['sys', 'tem']))('a')",
        "py-shell-exec",
    ),
    (
        "getter of several",
        "import operator\na, b = operator.attrgetter('getcwd', 'path.os.popen')(os)\nb('id')",
        "py-shell-exec",
    ),
    ("getter of items", "import operator\noperator.itemgetter('system')(vars(os))('id')", "py-shell-exec"),
    ("getter without a name", "import operator\noperator.attrgetter()\nos.system('id')", "py-shell-exec"),
    ("caller", "import operator\noperator.methodcaller('system', 'id')(os)", "py-shell-exec"),
    ("dictionary of pairs", "dict([('a', os.system), (len('b'), print)])['a']('id')", "py-shell-exec"),
    ("dictionary of columns", "dict(zip(['a', 'b'], [os.system, print]))['a']('id')", "py-shell-exec"),
    ("inserted", "f = [os.getcwd]\nf.insert(0, os.system)\nf[0]('id')", "py-shell-exec"),
    (
        "file two up",
        "from pathlib import Path\n(Path(__file__).parent / '..' / '..' / 'x').read_text()",
        "py-file-access",
    ),
)
EXECUTE = (
    ("temporary name", "import tempfile\nopen(tempfile.gettempdir() + '/' + x[0], 'w')", "py-file-access"),
    ("keras", "import keras\nkeras.models.load_model(x[0])", "py-unsafe-deserialize"),
    ("scripted model", "import torch\ntorch.jit.load(io.BytesIO(x[0]))", "py-unsafe-deserialize"),
    ("error raised again", "try:\n    pass\nexcept Exception as e:\n    raise RuntimeError(f'{e}')", "py-error-leak"),
    (
        "own error",
        "class Bad(Exception): pass\ntry:\n    pass\nexcept OSError as e:\n    raise Bad(e)",
        "py-error-leak",
    ),
    (
        "own error by name",
        "class Bad(Exception): pass\ntry:\n    pass\nexcept OSError as e:\n    raise Bad(why=e)",
        "py-error-leak",
    ),
    (
        "error made before",
        "try:\n    pass\nexcept OSError as e:\n    error = ValueError(repr(e))\n    raise error",
        "py-error-leak",
    ),
    ("error as it is", "try:\n    pass\nexcept OSError as e:\n    raise e", "py-error-leak"),
    ("asteval", "import asteval\nasteval.Interpreter()(x[0])", "py-dynamic-code"),
)
GOOD = (
    ("error of one's own", "try:\n    pass\nexcept OSError:\n    raise ValueError('failed') from None"),
    ("error let through", "try:\n    pass\nexcept OSError:\n    raise"),
    ("error meant for the client", "try:\n    pass\nexcept pb_utils.TritonModelException as e:\n    raise e"),
    (
        "reduced",
        "import functools, operator\nfunctools.reduce(operator.mul, [1, 2])\nfunctools.reduce(getattr, ['a', 'b'], self)",
    ),
    ("getter", "import operator\nsorted([], key=operator.attrgetter('size', 'name'))\noperator.itemgetter(0)([1])"),
    ("own folder", "sys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))"),
    ("model's folder", "sys.path.append(os.path.join(os.path.dirname(__file__), '..'))"),
    ("path read", "print(sys.path)"),
    ("switch off", "os.environ['TRUST_REMOTE_CODE'] = '0'"),
    ("switch off either way", "os.environ['TRUST_REMOTE_CODE'] = '0' if x else 'false'"),
    ("array file without objects", "np.lib.npyio.NpzFile('a', True)"),
    ("local hub", "import torch\ntorch.hub.load('here', 'm', source='local')"),
    ("plain decorator", "import functools\n@functools.lru_cache\ndef f(a): return a"),
    ("scratch file", "import tempfile\nwith tempfile.NamedTemporaryFile() as f:\n    open(f.name, 'wb')"),
)


def rules(root: Path, text: str) -> set[str]:
    """Write one model and return the rules that its code breaks."""
    path = root / "m/1/model.py"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return {finding.rule for finding in check_python(path, "m/1/model.py", root).findings}


@pytest.mark.parametrize(("what", "source", "rule"), INITIALIZE, ids=[case[0] for case in INITIALIZE])
def test_while_it_loads(tmp_path: Path, what: str, source: str, rule: str) -> None:
    """Spellings that a table of function names does not show."""
    assert rule in rules(tmp_path, model("pass", source))


@pytest.mark.parametrize(("what", "source", "rule"), EXECUTE, ids=[case[0] for case in EXECUTE])
def test_with_request_data(tmp_path: Path, what: str, source: str, rule: str) -> None:
    """What only request data make worth a word."""
    assert rule in rules(tmp_path, model(source))


@pytest.mark.parametrize(("what", "source"), GOOD, ids=[case[0] for case in GOOD])
def test_is_clean(tmp_path: Path, what: str, source: str) -> None:
    """The model's own folder, and switches that are off."""
    assert rules(tmp_path, model("pass", source)) == set()


def test_own_folder_on_the_path(tmp_path: Path) -> None:
    """A module in a folder that the model puts on the path is looked at."""
    (tmp_path / "m/1/lib").mkdir(parents=True)
    (tmp_path / "m/1/lib/tools.py").write_text("import os\nos.system('ls')\n")
    path = tmp_path / "m/1/model.py"
    path.write_text("import os, sys\nsys.path.append(os.path.join(os.path.dirname(__file__), 'lib'))\nimport tools\n")
    (found,) = check_python(path, "m/1/model.py", tmp_path).findings
    assert (found.rule, found.path) == ("py-shell-exec", "m/1/lib/tools.py")


def test_execute_by_another_name(tmp_path: Path) -> None:
    """A function that a class takes over is its execute."""
    source = "def run(self, requests):\n    return [r for r in requests]\nclass TritonPythonModel:\n    execute = run\n"
    assert rules(tmp_path, source) == {"py-no-input-validation"}


def test_calls_itself_by_its_own_name(tmp_path: Path) -> None:
    """``args["model_name"]`` is known to be the folder's."""
    source = (
        "import triton_python_backend_utils as pb_utils\nclass TritonPythonModel:\n"
        "    def initialize(self, args):\n        self.me = args['model_name']\n"
        "    def execute(self, requests):\n        pb_utils.InferenceRequest(model_name=self.me).exec()\n"
    )
    path = tmp_path / "shop/1/model.py"
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert [call.model for call in check_python(path, "model.py", tmp_path).bls_calls] == ["shop"]


@pytest.mark.parametrize("table", [sinks.EXACT, sinks.ONLY_WITH_REQUEST_DATA, paths.FUNCTIONS, fold.FUNCTIONS])
def test_the_usual_spelling(table: Iterable[str]) -> None:
    """A row under any but the usual spelling would be one that no call ever meets."""
    assert [name for name in table if sinks.canonical(name) != name] == []
