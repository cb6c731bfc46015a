"""What leaves for a client: one line, no host paths, bounded."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton._text import MAX_CLIENT_TEXT, client_text


class TestPaths:
    """Absolute paths are replaced; what only looks like one stays."""

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("no /srv/models/a.bin here", "no <path> here"),
            ("/srv", "<path>"),
            ("'/srv/a' and \"/srv/b\"", "'<path>' and \"<path>\""),
            ("file:///srv/a", "<path>"),
            ("~/models/a", "<path>"),
            ("//server/share", "<path>"),
            ("path=/srv/a, next", "path=<path>, next"),
            ("at:/srv/a:12", "at:<path>:12"),
            ("in </srv/models/a>", "in <<path>>"),
            ("loading.../srv/models/a", "loading...<path>"),
            ("loading…/srv/models/a", "loading…<path>"),
            ("line\n/srv/a\tend", "line <path> end"),
            ("no image in <_io.BytesIO object at 0x7fd415553e20>", "no image in <_io.BytesIO object>"),
        ],
    )
    def test_replaced(self, text: str, expected: str) -> None:
        """No absolute path and no address in memory is left, whatever stands around it."""
        assert client_text(text) == expected

    @pytest.mark.parametrize(
        "text",
        [
            "and/or",
            "1/2",
            "a / b",
            "https://example.org/docs/limits",
            "s3://bucket/key",
            "../up",
            "./here",
            "<b>bold</b>",
            "register 0x1F is not known",
        ],
    )
    def test_kept(self, text: str) -> None:
        """Words, fractions, URLs and relative names reach the client as they are."""
        assert client_text(text) == text


class TestShape:
    """Any text becomes one line of bounded length."""

    @given(st.text(max_size=3000))
    def test_one_printable_line(self, text: str) -> None:
        """No control character, no line break, at most the bound."""
        clean = client_text(text)
        assert clean.isprintable()
        assert len(clean) <= MAX_CLIENT_TEXT

    def test_at_the_bound_and_above(self) -> None:
        """The bound itself is kept; one more is cut and marked."""
        assert client_text("x" * MAX_CLIENT_TEXT) == "x" * MAX_CLIENT_TEXT
        assert client_text("x" * (MAX_CLIENT_TEXT + 1)) == "x" * (MAX_CLIENT_TEXT - 1) + "…"

    @pytest.mark.parametrize("text", ["/" * 1_000_000, "/a" * 500_000, "~" * 100_000, "file:" * 100_000, "<" * 100_000])
    def test_hostile_texts_take_no_time(self, text: str) -> None:
        """The pattern never backtracks for long."""
        began = time.process_time()
        client_text(text)
        assert time.process_time() - began < 10
