"""Lines of the log as JSON."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from safe_triton.server.log_lines import as_json, own_line


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            "2026-11-23T03:43:11Z I 123 model_lifecycle.cc:839] \"successfully loaded 'm'\"",
            {
                "time": "2026-11-23T03:43:11Z",
                "level": "info",
                "message": "successfully loaded 'm'",
                "pid": 123,
                "source": "model_lifecycle.cc:839",
            },
        ),
        (
            '2026-11-23T03:43:11Z E 1 a.cc:1] "first\\nsecond"',
            {
                "time": "2026-11-23T03:43:11Z",
                "level": "error",
                "message": "first\nsecond",
                "pid": 1,
                "source": "a.cc:1",
            },
        ),
        (
            '2026-11-23T03:43:11Z W 1 a.cc:1] "a \\q b"',
            {"time": "2026-11-23T03:43:11Z", "level": "warning", "message": "a \\q b", "pid": 1, "source": "a.cc:1"},
        ),
        ('{"level": "error", "message": "m", "reason": "r"}', {"level": "error", "message": "m", "reason": "r"}),
        ("{not JSON", {"level": "info", "message": "{not JSON"}),
        ("[1]", {"level": "info", "message": "[1]"}),
        ("+--------+", {"level": "info", "message": "+--------+"}),
        ("", {"level": "info", "message": ""}),
    ],
)
def test_a_line(line: str, fields: dict[str, object]) -> None:
    """Every line becomes one object on one line, whatever it holds."""
    assert json.loads(as_json(line)) == fields
    assert "\n" not in as_json(line)


def test_a_line_of_this_package() -> None:
    """JSON with its time, in UTC like Triton's own lines."""
    before = dt.datetime.now(dt.timezone.utc)
    line = own_line("warning", "model failed", {"model": "a\nb"})
    fields = json.loads(line)
    written = dt.datetime.strptime(fields.pop("time"), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=dt.timezone.utc)
    assert dt.timedelta(milliseconds=-1) < written - before < dt.timedelta(seconds=60)
    assert fields == {"level": "warning", "message": "model failed", "model": "a\nb"}
    assert b"\n" not in line
