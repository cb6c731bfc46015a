"""Lines of real logs and what is read from them."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.server.log import KEPT_BYTES, ServerLog, death_reason, is_port_taken, short_reason

LINES = """I1123 00:10:15.391330 2396 model_lifecycle.cc:472] "loading: probe:1"
I1123 00:10:15.391372 2396 model_lifecycle.cc:472] "loading: bad:12"
2024-11-23T00:10:15Z I 2396 model_lifecycle.cc:472] "loading: slow:1"
I1123 00:10:15.672742 2396 model_lifecycle.cc:839] "successfully loaded 'probe'"
E1123 0:1:2.3 2 m.cc:642] "failed to load 'bad' version 12: Internal: E: 3 > 2\\n\\nAt:\\n  /a/model.py(4): f\\n"
I1123 00:10:15.743242 2396 model_lifecycle.cc:777] "failed to load 'bad'"
+---------+
| Backend |
"""


@pytest.fixture
def log(tmp_path: Path) -> ServerLog:
    """Return a log whose file does not exist yet."""
    return ServerLog(tmp_path / "server.log")


class TestServerLog:
    def test_states(self, log: ServerLog) -> None:
        """Loading, loaded and failed models are told apart in both formats; tables are no last line."""
        log.update()
        log.path.write_text(LINES)
        log.update()
        assert (log.loading, log.loaded) == ({"slow"}, {"probe"})
        assert log.failed == {"bad": "Internal: E: 3 > 2 (at model.py line 4)"}
        assert log.last_line == "failed to load 'bad'"

    def test_in_pieces(self, log: ServerLog) -> None:
        """It does not matter where a piece of the file ends."""
        for end in range(0, len(LINES) + 1, 7):
            log.path.write_text(LINES[:end])
            log.update()
        log.path.write_text(LINES)
        log.update()
        assert (log.loading, log.loaded, list(log.failed)) == ({"slow"}, {"probe"}, ["bad"])

    def test_reload_after_a_failure(self, log: ServerLog) -> None:
        """A model that loads in the end has not failed."""
        log.path.write_text(LINES + "I1 x 1 m.cc:1] \"successfully loaded 'bad'\"\n")
        log.update()
        assert log.failed == {}

    def test_kept_end(self, log: ServerLog) -> None:
        """The last MiB stays readable once the file is gone, by the same positions."""
        log.path.write_bytes(b"a" * KEPT_BYTES + b"b" * 10)
        assert log.text(since_bytes=KEPT_BYTES + 5) == "b" * 5
        log.keep()
        log.path.unlink()
        assert len(log.text()) == KEPT_BYTES
        assert log.text(since_bytes=KEPT_BYTES + 5) == "b" * 5
        assert log.size_bytes() == KEPT_BYTES + 10


class TestAppended:
    """What is appended is bounded on the disk and keeps its positions."""

    def test_a_full_file_is_put_aside(self, tmp_path: Path) -> None:
        """The disk holds at most two files; what is gone is said; positions count on."""
        log = ServerLog(tmp_path / "server.log", most_bytes=1000)
        for number in range(100):
            log.append(b"%099d\n" % number)
        on_disk = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert on_disk <= 2 * 1000 + 200
        assert "its oldest part was removed" in log.text()
        assert f"{99:099d}\n" in log.text()
        assert log.size_bytes() >= 10_000
        assert log.text(since_bytes=log.size_bytes() - 5) == "0099\n"[-5:]

    def test_private(self, log: ServerLog) -> None:
        """Nobody else on the machine reads the file."""
        log.append(b"x")
        assert log.path.stat().st_mode & 0o777 == 0o600

    def test_states_across_files(self, tmp_path: Path) -> None:
        """What was put aside before it was read is read all the same."""
        log = ServerLog(tmp_path / "server.log", most_bytes=len(LINES))
        log.append(LINES.encode())
        log.append(b"next file\n")
        log.update()
        assert (log.loading, log.loaded, log.last_line) == ({"slow"}, {"probe"}, "next file")

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """What cannot be written is lost, and nobody notices."""
        log = ServerLog(tmp_path / "missing" / "server.log")
        log.append(b"x")
        assert log.text() == ""


class TestReasons:
    @pytest.mark.parametrize(
        ("reason", "short"),
        [
            ("Internal: E: x\n\nAt:\n  /p/model.py(4): initialize\n", "Internal: E: x (at model.py line 4)"),
            (
                "Internal: E: x\n\nAt:\n  /v/lib/python3.11/socket.py(3): f\n  <frozen os>(9): g\n  /a b/model.py(4): f\n",
                "Internal: E: x (at model.py line 4)",
            ),
            ("Internal: E: x\n\nAt:\n  /v/lib/python3.11/socket.py(3): f\n", "Internal: E: x (at socket.py line 3)"),
            ("Not found: no such thing", "Not found: no such thing"),
            ("\n\n", ""),
        ],
    )
    def test_short(self, reason: str, short: str) -> None:
        """One line: the message and where the model's own code raised it, without folders."""
        assert short_reason(reason) == short

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (
                "I1 a 1 b.cc:1] x\nerror: creating server: Internal - failed\n",
                "error: creating server: Internal - failed",
            ),
            (
                "/x/tritonserver: unrecognized option '--no'\nUsage: tritonserver\n  --help",
                "unrecognized option '--no'",
            ),
            ("t: error while loading shared libraries: libx.so: cannot open", "libraries: libx.so: cannot open"),
            ("terminate called after throwing an instance of 'E'\n  what():  stol\n", "instance of 'E' what():  stol"),
            ('I1123 00:00:00 1 a.cc:1] one\nE1123 00:00:00 1 a.cc:1] "two"\nI1123 00:00:00 1 a.cc:1] three', "two"),
            ("", "it printed nothing"),
        ],
    )
    def test_death(self, text: str, said: str) -> None:
        """The last error, in one line, without the usage text."""
        assert death_reason(text).endswith(said)

    @pytest.mark.parametrize(
        ("text", "taken"),
        [
            ("error: failed to start HTTP service: Unavailable - Socket '127.0.0.1:1' already in use ", True),
            ("error: creating server: Internal - failed to load all models", False),
        ],
    )
    def test_taken_port(self, text: str, taken: bool) -> None:
        """Only a port that is taken is worth another attempt."""
        assert is_port_taken(text) is taken
