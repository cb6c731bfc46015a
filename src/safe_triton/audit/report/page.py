"""The report as one self-contained page: no script, nothing loaded from elsewhere."""

from __future__ import annotations

import itertools
from html import escape

from safe_triton.audit.engine import Report
from safe_triton.audit.finding import Finding, Level
from safe_triton.audit.graph.svg import svg
from safe_triton.audit.report.document import printable
from safe_triton.audit.report.lines import MAX_WIDTH, Sources
from safe_triton.audit.rules.table import ALL, level_of

STYLE = """
:root{color-scheme:light dark;--line:#8884;--error:#c62828;--warning:#b26a00;--info:#3a6ea5}
@media(prefers-color-scheme:dark){:root{--error:#ff8a80;--warning:#ffb74d;--info:#90caf9}}
body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem}h2{font-size:1.1rem;margin:2rem 0 .4rem;overflow-wrap:anywhere}
ul.counts{list-style:none;display:flex;flex-wrap:wrap;gap:1.2rem;padding:0}
ul.counts b{font-size:1.4rem;margin-right:.3rem}
article{border:1px solid var(--line);border-left-width:5px;border-radius:4px;padding:.5rem .8rem;margin:.5rem 0}
article.error{border-left-color:var(--error)}article.warning{border-left-color:var(--warning)}
article.info{border-left-color:var(--info)}
.level{font-weight:600}
.error .level{color:var(--error)}.warning .level{color:var(--warning)}.info .level{color:var(--info)}
pre{overflow-x:auto;margin:.4rem 0;padding:.4rem .6rem;background:#8881;border-radius:3px}
details{margin-top:.3rem}summary{cursor:pointer}.why{opacity:.85}
figure{overflow-x:auto;margin:1rem 0;border:1px solid var(--line);border-radius:4px}
svg rect{fill:#8882;stroke:currentColor}svg text{font:13px system-ui,sans-serif;fill:currentColor}
svg .ensemble rect{stroke-width:2.5}svg .missing rect{stroke:var(--error);stroke-dasharray:4 3}
svg .call{stroke:currentColor;stroke-width:1.4}svg .bls{stroke-dasharray:5 4}
svg .bad{stroke:var(--error);stroke-width:2}
"""


def page(report: Report) -> str:
    """Return the page.

    Args:
        report: of the check.
    """
    sources = Sources()
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>safe-triton check</title><style>{STYLE}</style></head><body><main><h1>safe-triton check</h1>",
        _counts(report),
    ]
    for graph in report.graphs:
        picture = svg(graph)
        if picture:
            legend = "solid: ensemble step; dashed: call from Python code; red: in a circle, or there is no such model"
            parts.append(f"<h2>Calls in {_text(graph.title)}</h2><figure>{picture}</figure><p>{legend}</p>")
    for path, findings in itertools.groupby(report.findings, key=lambda each: each.path):
        parts.append(f"<section><h2>{_text(path)}</h2>")
        parts += [_finding(each, sources) for each in findings]
        parts.append("</section>")
    if not report.findings:
        parts.append("<p>No findings.</p>")
    return "".join([*parts, "</main></body></html>\n"])


def _counts(report: Report) -> str:
    rows = [(report.count(level), level.word) for level in (Level.ERROR, Level.WARNING, Level.INFO)]
    rows += [(len(report.suppressed), "suppressed"), (report.models, "models"), (report.files, "files")]
    items = "".join(f"<li><b>{number:,}</b>{word}</li>" for number, word in rows)
    verdict = f"failed (at {report.fail_on.word} or above)" if report.has_failed else "passed"
    return f'<ul class="counts">{items}</ul><p>Result: <strong>{verdict}</strong></p>'


def _finding(finding: Finding, sources: Sources) -> str:
    rule, level = ALL.get(finding.rule), level_of(finding).word
    place = f"line {finding.line}: " if finding.line else ""
    line = printable(sources.line(finding))[:MAX_WIDTH]
    source = f"<pre><code>{escape(line.strip())}</code></pre>" if line.strip() else ""
    fix = finding.fix or (rule.fix if rule else "")
    more = ""
    if rule is not None:
        words = " · ".join(filter(None, (rule.code, rule.cwe, rule.owasp)))
        reference = f' <a href="{escape(rule.reference, quote=True)}">reference</a>' if rule.reference else ""
        more = (
            f'<details><summary>Why, and what to do</summary><p class="why">{escape(rule.why)}</p>'
            f"<pre><code>{escape(fix)}</code></pre><p>{escape(words)}{reference}</p></details>"
        )
    return (
        f'<article class="{level}"><span class="level">{level}</span> <code>{escape(finding.rule)}</code> '
        f"{place}{_text(finding.message)}{source}{more}</article>"
    )


def _text(text: str) -> str:
    return escape(printable(text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")))
