"""Shell scripts: every way of writing one command leads to the same words."""

from __future__ import annotations

import time

import pytest

from safe_triton.audit.deployment import check_shell
from safe_triton.audit.deployment.shell import parse_shell


def rules_of(text: str) -> set[str]:
    """Return the names of the rules that a script breaks."""
    return {found.rule for found in check_shell(text, "run.sh")}


def lines_of(text: str, rule: str) -> list[int]:
    """Return the lines on which a rule is broken."""
    return [found.line for found in check_shell(text, "run.sh") if found.rule == rule]


EXPLICIT = "tritonserver --model-repository=/m --model-control-mode=explicit"


class TestFindingTheServer:
    @pytest.mark.parametrize(
        "text",
        [
            EXPLICIT,
            f"exec {EXPLICIT}",
            f"nohup {EXPLICIT} > log 2>&1 &",
            f"sudo -E -u triton {EXPLICIT}",
            f"LD_PRELOAD=/x.so CUDA_VISIBLE_DEVICES=0 {EXPLICIT}",
            f"env A=b {EXPLICIT}",
            f"/opt/tritonserver/bin/{EXPLICIT}",
            f"mpirun --allow-run-as-root -n 1 {EXPLICIT} : -n 1 tritonserver --x",
            f"bash -c '{EXPLICIT}'",
            f'sh -lc "cd / && exec {EXPLICIT}"',
            f"su triton -c '{EXPLICIT}'",
            f'eval "{EXPLICIT}"',
            f"timeout 10 {EXPLICIT} || exit 1",
            f"( cd /x && {EXPLICIT} )",
            f"if true; then {EXPLICIT}; fi",
            f"start() {{ {EXPLICIT}; }}\nstart",
            f"PID=$({EXPLICIT} & echo $!)",
            f"X=`{EXPLICIT}`",
            f"numactl --cpunodebind=0 {EXPLICIT} | tee log",
            "MODE=explicit\ntritonserver --model-control-mode=$MODE",
            "tritonserver --model-control-mode=${MODE:-explicit}",
            "tritonserver --model-control-mode=${MODE-explicit}",
            'tritonserver --model-control-mode=${MODE:-"explicit"}',
            'tritonserver --model-control-mode="${MODE:-${OTHER:-explicit}}"',
            "D=explicit\ntritonserver --model-control-mode=${MODE:-$D}",
            'LD_LIBRARY_PATH="$LD_LIBRARY_PATH:/x" bin/tritonserver --model-control-mode=explicit',
            "D=explicit\nbash <<EOF\ntritonserver --model-control-mode=${MODE:-$D}\nEOF",
            "ARGS='--model-control-mode explicit'\ntritonserver $ARGS",
            'ARGS=(--model-repository=/m # why\n  --model-control-mode=explicit)\ntritonserver "${ARGS[@]}"',
            'ARGS=(--a)\nif [ "$X" ]; then ARGS+=(--model-control-mode=explicit); fi\ntritonserver "${ARGS[@]}"',
            'ARGS="--log-verbose=0"\nARGS="$ARGS --model-control-mode=explicit"\ntritonserver $ARGS',
            'ARGS=""\nARGS+=" --model-control-mode=explicit"\ntritonserver $ARGS',
            'set -- --model-control-mode=explicit\nexec tritonserver "$@"',
            "export MODE=explicit\ntritonserver --model-control-mode $MODE",
            "SERVER=tritonserver\n$SERVER --model-control-mode=explicit",
            "CMD='tritonserver --model-control-mode=explicit'\n$CMD",
            "run() { tritonserver --model-control-mode=$MODE; }\nMODE=explicit\nrun",
            "tritonserver \\\n  --model-repository=/m \\\n  --model-control-mode=explicit",
            "tritonserver \\\r\n  --model-control-mode=explicit\r\n",
            'tritonserver --model-control-mode="exp"licit',
            "tritonserver --model-control-mode='explicit'",
            "tritonserver --model-control\\-mode=explicit",
            f"bash <<EOF\n{EXPLICIT}\nEOF",
            f"((x = 1<<4))\n{EXPLICIT}",
            f"(( x =\n1 << 4 ))\n{EXPLICIT}",
            f"for ((i=1; i<1<<4; i++)); do\n{EXPLICIT}\ndone",
            f"((cd /m); {EXPLICIT})",
            f"((x = 1))\nbash <<EOF\n{EXPLICIT}\nEOF",
            f"cat > /run.sh <<'EOF'\n#!/bin/sh\n{EXPLICIT}\nEOF",
            f"docker exec -d triton {EXPLICIT}",
            f"ssh host '{EXPLICIT}'",
            f"docker run img bash -c '{EXPLICIT}'",
            f"docker run --rm nvcr.io/nvidia/tritonserver:24.10-py3 {EXPLICIT}",
            "docker run my/tritonserver:1 --model-repository=/m --model-control-mode=explicit",
            "[Unit]\nDescription=x\n[Service]\nExecStart=/opt/tritonserver/bin/tritonserver --model-control-mode=explicit",
            "kubectl exec pod -- " + EXPLICIT,
            f"[program:triton]\ncommand = {EXPLICIT}",
            f"serve: models\n\t@{EXPLICIT}",
            f"serve:\n\t@docker run img {EXPLICIT}",
            f"web: {EXPLICIT}",
        ],
    )
    def test_is_found(self, text: str) -> None:
        """The server is found, with its options, however it is started."""
        assert "restricted-api-missing" in rules_of(text)

    @pytest.mark.parametrize(
        "text",
        [
            "echo 'tritonserver --model-control-mode=explicit'",
            "# tritonserver --model-control-mode=explicit",
            "which tritonserver",
            "cd /opt/tritonserver && ls",
            "pkill -f tritonserver --signal 9",
            "docker pull nvcr.io/nvidia/tritonserver",
            "docker stop tritonserver",
            'if ! command -v tritonserver; then echo "no tritonserver --x"; fi',
            "tritonserver --help",
            "git clone https://github.com/triton-inference-server/server",
            "cat <<'EOF'\ntritonserver --model-control-mode=explicit\nEOF",
            "",
            "\\",
            "'unclosed",
            '"${unclosed',
            "$(((((",
            "<<EOF",
            "A=(1 2",
        ],
    )
    def test_nothing_is_started(self, text: str) -> None:
        """A text that only mentions the server, or is no script at all, has no findings."""
        assert rules_of(text) == set()


class TestBrokenContinuations:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("tritonserver \\\n  --log-info=1 \\\n  # TLS\n  --grpc-use-ssl=true", 4),
            ("tritonserver \\\n  # TLS \\\n  --grpc-use-ssl=true", 3),
            ("tritonserver \\\n  --log-info=1 \\ \n  --grpc-use-ssl=true", 3),
            ("tritonserver --log-info=1\n  --grpc-use-ssl=true", 2),
            ("tritonserver \\\n\n  --grpc-use-ssl=true", 3),
            ("docker run image tritonserver \\\n  # x\n --grpc-use-ssl=true", 3),
            ("docker run \\\n  # x\n --gpus all image", 3),
            ("sh -c 'tritonserver \\\n  # x\n --grpc-use-ssl=true'", 3),
        ],
    )
    def test_is_found(self, text: str, line: int) -> None:
        """Options that a comment, a blank or a missing backslash cuts off are named with their line."""
        assert line in lines_of(text, "broken-continuation")

    @pytest.mark.parametrize(
        "text",
        [
            "tritonserver \\\n  --log-info=1 \\\n  # the end",
            "# x\ntritonserver --log-info=1 # y\necho --z",
            "tritonserver --log-info=1\necho done",
            "ls \\\n # x\n  --long",
            "ARGS=(\n --a # x\n # y\n --b)\ntritonserver ${ARGS[@]}",
        ],
    )
    def test_is_clean(self, text: str) -> None:
        """A comment that cuts nothing off is no finding."""
        assert lines_of(text, "broken-continuation") == []

    def test_what_is_cut_off_does_not_count(self) -> None:
        """The server starts without the options below the comment."""
        text = "tritonserver \\\n # TLS\n --grpc-use-ssl=true --grpc-server-cert=c --grpc-server-key=k"
        assert {"no-tls", "broken-continuation"} <= rules_of(text)


class TestWords:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a b  c", ["a", "b", "c"]),
            ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
            ("a\\ b", ["a b"]),
            ('a "" b', ["a", "", "b"]),
            ("a 2>&1 >x <y b", ["a", "b"]),
            ("X='1 2'; a $X", ["a", "1", "2"]),
            ("X='1 2'; a \"$X\"", ["a", "1 2"]),
            ("X=; a $X b", ["a", "b"]),
            ("a ${X:+y} b", ["a", "b"]),
            ("X=1; a ${X:+y}", ["a", "y"]),
            ("a '$X'", ["a", "$X"]),
            ("X=1; a \\$X", ["a", "$X"]),
            ("a $UNKNOWN", ["a", "$UNKNOWN"]),
            ("a ${U%.*}", ["a", "${U%.*}"]),
            ("A=(1 '2 3'); a \"${A[@]}\" x", ["a", "1", "2 3", "x"]),
            ("A=(1 2); a x${A[@]}y", ["a", "x1", "2y"]),
            ("a $(b c)", ["a", "$(b c)"]),
            ("a -v <path-to-it>:/m b <in >out", ["a", "-v", "<path-to-it>:/m", "b"]),
            ("a #b", ["a"]),
            ("a b#c", ["a", "b#c"]),
        ],
    )
    def test_words(self, text: str, words: list[str]) -> None:
        """Quotes, variables, arrays and redirections are read as bash does."""
        assert [word.text for word in parse_shell(text).commands[-1].words] == words

    def test_lines(self) -> None:
        """Each word knows its line."""
        command = parse_shell("\na \\\n  b \\\n  'c\nd' e").commands[0]
        assert [word.line for word in command.words] == [2, 3, 4, 5]

    def test_growth_is_bounded(self) -> None:
        """A variable that doubles with every line stays small."""
        text = "A=xxxxxxxx\n" + "A=$A$A\n" * 60 + "tritonserver $A"
        assert len(parse_shell(text).commands[-1].words[-1].text) <= 1 << 16


class TestSecrets:
    @pytest.mark.parametrize(
        "line",
        [
            "export AWS_SECRET_ACCESS_KEY=abcdefgh",
            "API_TOKEN=abcdefgh",
            'HF="hf_abcdefghijklmnopqrst"',
            "DB_PASSWORD='x y z'",
        ],
    )
    def test_is_found(self, line: str) -> None:
        """A script that sets a secret and starts a server is named on that line."""
        assert lines_of(f"#!/bin/sh\n{line}\ntritonserver --x\n", "secrets-in-env") == [2]

    @pytest.mark.parametrize("line", ["API_TOKEN=$(cat /run/token)", "API_TOKEN=$1", "MAX_TOKENS=5", "TOKEN_FILE=/x"])
    def test_is_clean(self, line: str) -> None:
        """A secret that comes from elsewhere is none here."""
        assert lines_of(f"{line}\ntritonserver --x\n", "secrets-in-env") == []

    def test_without_a_server(self) -> None:
        """Scripts of other things are not this project's business."""
        assert rules_of("API_TOKEN=abcdefgh\nls\n") == set()


class TestFoundByFuzzing:
    @pytest.mark.parametrize(
        "text",
        [
            "docker run a " * 5_000,
            "bash -c 'bash -c \"" * 5_000,
            "$(" * 50_000,
            "A='a b c'\nA=$A$A$A$A$A$A$A$A\n" + "x $A$A$A$A\n" * 5_000,
            "A=x\n" + "A=$A$A\n" * 20 + "cat <<E\n" + "$A " * 50_000 + "\nE\n",
        ],
        ids=lambda text: repr(text[:20]),
    )
    def test_is_bounded(self, text: str) -> None:
        """Nesting and growth that once had no end: they end, with whatever was found."""
        start = time.process_time()
        rules_of(text)
        assert time.process_time() - start < 60


class TestOtherWaysToStart:
    @pytest.mark.parametrize(
        "text",
        [
            "cat <<EOF | bash\ntritonserver --model-control-mode=explicit\nEOF\n",
            "tmux new -d 'tritonserver --model-control-mode=explicit'\n",
            "screen -dmS t bash -c 'tritonserver --model-control-mode=explicit'\n",
        ],
    )
    def test_is_found(self, text: str) -> None:
        """A here-document through a pipe, a terminal multiplexer."""
        assert "restricted-api-missing" in rules_of(text)

    def test_carriage_returns(self) -> None:
        """A script with Windows' line ends: the backslash quotes the carriage return, and the command ends."""
        text = "tritonserver --model-repository=/m \\\r\n  --grpc-use-ssl=true\r\n"
        assert "broken-continuation" in rules_of(text)
        assert "broken-continuation" not in rules_of(text.replace("\r", ""))
