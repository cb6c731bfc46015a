"""Unusual spellings and unfinished files: read to their end, as their reader would."""

from __future__ import annotations

import pytest

from safe_triton.audit.deployment import (
    check_command_line,
    check_compose,
    check_dockerfile,
    check_kubernetes,
    check_shell,
    check_text,
    detect,
    shell,
    yamltree,
)
from safe_triton.audit.deployment.detect import Kind
from safe_triton.audit.deployment.server_command import parse_server_command
from safe_triton.audit.deployment.shell import parse_shell
from safe_triton.audit.deployment.words import MAX_TEXT_CHARS, Word
from safe_triton.audit.deployment.yamltree import read_yaml

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"
POD = f"apiVersion: v1\nkind: Pod\nspec:\n  containers:\n  - name: t\n    image: {IMAGE}\n"

# Text of a script -> the words of its commands.
WORDS: tuple[tuple[str, list[list[str]]], ...] = (
    ('a "b\\"c\\$d\\e"', [["a", 'b"c$d\\e']]),
    ('a "b\\\nc"', [["a", "bc"]]),
    ("a b\\ c", [["a", "b c"]]),
    ("a b\\\nc", [["a", "bc"]]),
    ("a $ b", [["a", "$", "b"]]),
    ("a ${!x} b", [["a", "${!x}", "b"]]),
    ("a 2>&1 >", [["a"]]),
    ("a <<", [["a"]]),
    ("a 3<&- b", [["a", "b"]]),
    ("x=' b' ; a $x", [["a", "b"]]),
    ("x='b ' ; a $x", [["a", "b"]]),
    ("a }", [["a", "}"]]),
    ("a b\u00a0c", [["a", "b\u00a0c"]]),
    ("a 'open", [["a", "open"]]),
    ("a `open", [["a", "`open"]]),
    ("a $(open", [["a", "$(open"]]),
    ("a ${open", [["a", "${open"]]),
    ("x=(a \\\nb\n# c\n d) ; e ${x[@]}", [["e", "a", "b", "d"]]),
    ("x=(a b", []),
    ("a b\\", [["a", "b"]]),
    ("a=1 ; a=2 b $a", [["a=2", "b", "1"]]),
)
HEREDOCS = (
    ("cat <<-END\n\ta\n\tb\n\tEND\n", ["a\nb"]),
    ("cat <<END\na", ["a"]),
    ("cat <<A <<B\na\nA\nb\nB\n", ["a", "b"]),
)
NESTED = (
    ("a $(b 'c)' \"d)\" e\\) (f)) g", "b 'c)' \"d)\" e\\) (f)"),
    ("a $(b", "b"),
    ("a `b c` d", "b c"),
)


@pytest.mark.parametrize(("text", "words"), WORDS, ids=[case[0] for case in WORDS])
def test_words(text: str, words: list[list[str]]) -> None:
    """A shell would get these words, or wait for more."""
    assert [[word.text for word in command.words] for command in parse_shell(text).commands] == words


@pytest.mark.parametrize(("text", "documents"), HEREDOCS, ids=[case[0] for case in HEREDOCS])
def test_heredocs(text: str, documents: list[str]) -> None:
    """A here-document ends at its word, or with the file."""
    assert [document.text for document in parse_shell(text).heredocs] == documents


@pytest.mark.parametrize(("text", "inner"), NESTED, ids=[case[0] for case in NESTED])
def test_substitutions(text: str, inner: str) -> None:
    """A substitution ends at its own parenthesis."""
    assert [text for text, _ in parse_shell(text).nested] == [inner]


def test_many_substitutions(monkeypatch: pytest.MonkeyPatch) -> None:
    """No more substitutions are kept than commands."""
    monkeypatch.setattr(shell, "MAX_COMMANDS", 2)
    assert len(parse_shell("a $(b) $(c) $(d)").nested) == 2


# A kind, a text, and the rule that it has.
FOUND: tuple[tuple[Kind, str, str], ...] = (
    ("shell", "bash script.sh\ntritonserver --exit-on-error=0", "exit-on-error-off"),
    ("shell", "cat <<END | sh\ncat <<END2 | sh\ntritonserver --exit-on-error=0\nEND2\nEND\n", "exit-on-error-off"),
    ("shell", f"cat > Dockerfile <<END\nFROM {IMAGE}\nUSER root\nEND\n", "run-as-root"),
    ("shell", f"kubectl apply -f - <<END\n{POD}    securityContext: {{privileged: true}}\nEND\n", "privileged"),
    ("shell", f"cat > compose.yaml <<END\nservices:\n  t:\n    image: {IMAGE}\n    privileged: true\nEND\n", "privileged"),
    ("shell", "cat > run.sh <<'END'\n#!/bin/sh\ntritonserver --exit-on-error=0\nEND\n", "exit-on-error-off"),
    ("shell", "docker compose exec t tritonserver --exit-on-error=0", "exit-on-error-off"),
    ("shell", "docker-compose run t tritonserver --exit-on-error=0", "exit-on-error-off"),
    ("shell", "tmux new -d 'tritonserver --exit-on-error=0'", "exit-on-error-off"),
    ("shell", f"docker run --privileged - {IMAGE}", "privileged"),
    ("shell", f"docker run --privileged -- {IMAGE}", "privileged"),
    ("shell", f"docker run --- --privileged {IMAGE}", "privileged"),
    ("shell", f"docker run -e NVIDIA_VISIBLE_DEVICES=all {IMAGE}", "all-gpus"),
    ("compose", "services:\n  t:\n    profiles: [a]\n", "no-memory-limit"),
    ("shell", f"docker run --gpus all -e NVIDIA_VISIBLE_DEVICES=0 {IMAGE}", "all-gpus"),
    ("shell", f"docker run --security-opt label=disable --security-opt seccomp=unconfined {IMAGE}", "seccomp-unconfined"),
    ("dockerfile", f"ARG A={IMAGE}\nFROM x\nARG A\nENV B=$A\nUSER root", "run-as-root"),
    ("dockerfile", f"ARG U=root\nFROM {IMAGE}\nARG U\nUSER $U", "run-as-root"),
    ("dockerfile", f'FROM {IMAGE} AS a\nCMD ["x"]\nFROM a\nENTRYPOINT ["tritonserver", "--exit-on-error=0"]', "exit-on-error-off"),
    ("dockerfile", f"FROM nvcr.io/nvidia/tritonserver:23.10-py3 AS a\nFROM a AS b\nFROM {IMAGE}\nCOPY --from=b /x /x", "image-outdated"),
    ("dockerfile", f"FROM {IMAGE}\nENV X\nENV A=${{B:+y}}${{A:-root}}\nUSER ${{A:-root}}", "run-as-root"),
    ("compose", f"services:\n  t:\n    image: {IMAGE}\n    environment: {{A: , NVIDIA_VISIBLE_DEVICES: all}}", "all-gpus"),
    ("compose", "services:\n  t:\n    build: .\n    command: tritonserver --exit-on-error=0", "exit-on-error-off"),
    ("compose", f"services:\n  t:\n    image: {IMAGE}\n    runtime: nvidia", "all-gpus"),
    ("kubernetes", f"- - {POD.replace(chr(10), chr(10) + '    ')}    securityContext: {{privileged: true}}", "privileged"),
    ("kubernetes", f"{POD}    securityContext: {{windowsOptions: {{hostProcess: true}}}}", "privileged"),
    ("kubernetes", f"{POD}  - text\n  hostNetwork: true\n", "host-network"),
    ("kubernetes", f"{POD}    env: [{{name: NVIDIA_VISIBLE_DEVICES, value: all}}]\n", "all-gpus"),
    ("yaml", "a: &x\n  - [tritonserver, --exit-on-error=0]\nb: *x\n", "exit-on-error-off"),
    ("shell", "a" * (MAX_TEXT_CHARS + 1), "audit-limit"),
)  # fmt: skip
CLEAN: tuple[tuple[Kind, str], ...] = (
    ("shell", "docker exec t ls"),
    ("shell", "cat <<A | sh\ncat <<B | sh\ncat <<C\ntritonserver --x\nC\nB\nA\n"),
    ("shell", "ls tritonserver"),
    ("compose", "services: later\n"),
    ("shell", "docker compose up -d tritonserver\ndocker-compose logs tritonserver"),
    ("shell", "docker ps"),
    ("shell", "docker"),
    ("shell", "tmux attach\nssh"),
    ("shell", "docker run --name"),
    ("shell", "bash -x script.sh tritonserver"),
    ("shell", "cat <<A\ncat <<B\ncat <<C\ntritonserver\nC\nB\nA\n"),
)


@pytest.mark.parametrize(("kind", "text", "rule"), FOUND, ids=[case[1][:40] for case in FOUND])
def test_is_found(kind: Kind, text: str, rule: str) -> None:
    """However it is written."""
    assert rule in {found.rule for found in check_text(kind, text, "file")}


@pytest.mark.parametrize(("kind", "text"), CLEAN, ids=[case[1][:40] for case in CLEAN])
def test_is_clean(kind: Kind, text: str) -> None:
    """What starts nothing."""
    assert check_text(kind, text, "file") == []


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"FROM {IMAGE}\nCOPY --from={IMAGE} /a /a\nUSER 1000", "image-outdated"),
        ("FROM scratch\nCOPY a b", "image-outdated"),
    ],
)
def test_images_that_are_copied_from(text: str, rule: str) -> None:
    """An image is judged once, and one that is up to date has no finding."""
    assert rule not in {found.rule for found in check_dockerfile(text, "Dockerfile")}


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("    gpus:\n      - {driver: amd, count: all}", "all-gpus"),
        ("    environment: [NVIDIA_VISIBLE_DEVICES=0]", "all-gpus"),
        ("    gpus: all\n    environment: [NVIDIA_VISIBLE_DEVICES=0]", "no-gpu-limit"),
    ],
)
def test_gpus_of_a_service(lines: str, rule: str) -> None:
    """Devices of another maker, and a device that is named."""
    text = f"services:\n  t:\n    image: {IMAGE}\n{lines}\n"
    assert rule not in {found.rule for found in check_compose(text, "compose.yaml")}


def test_gpus_of_a_pod() -> None:
    """A pod that asks for none gets none."""
    text = f"{POD}    env: [{{name: NVIDIA_VISIBLE_DEVICES, value: void}}]\n"
    rules = {found.rule for found in check_kubernetes(text, "pod.yaml")}
    assert not rules & {"no-gpu-limit", "all-gpus"}


def test_gpus_that_are_switched_off() -> None:
    """A limit of 0 is one."""
    text = f"{POD}    resources: {{limits: {{nvidia.com/gpu: 0}}}}\n"
    assert "no-gpu-limit" not in {found.rule for found in check_kubernetes(text, "pod.yaml")}


def test_a_pod_that_is_named_twice() -> None:
    """What an alias repeats is judged once."""
    text = f"kind: A\napiVersion: v1\na: &x\n  containers:\n  - {{name: t, image: '{IMAGE}', securityContext: {{privileged: true}}}}\nb: *x\n"
    assert [found.rule for found in check_kubernetes(text, "pod.yaml")].count("privileged") == 1


@pytest.mark.parametrize(("version", "is_old"), [("23.10-py3", True), ("latest", False)])
def test_a_serving_runtime(version: str, is_old: bool) -> None:
    """KServe names the release instead of an image."""
    text = (
        "apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nspec:\n  predictor:\n    triton:\n"
        f"      runtimeVersion: {version}\n"
    )
    assert ("image-outdated" in {found.rule for found in check_kubernetes(text, "service.yaml")}) is is_old


@pytest.mark.parametrize("labels", ["{app: a}", "{app: b}"])
def test_policies_of_other_pods(labels: str) -> None:
    """A network policy counts for the pods that it selects."""
    pod = POD.replace("spec:", f"metadata: {{labels: {labels}}}\nspec:")
    policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nspec: {podSelector: {matchLabels: {app: a}}, policyTypes: [Ingress]}\n"
    rules = {found.rule for found in check_kubernetes(pod + policy, "pod.yaml")}
    assert ("network-not-isolated" in rules) is (labels == "{app: b}")


def test_a_pod_without_containers() -> None:
    """There is nothing to judge yet."""
    text = "kind: Pod\nspec:\n  containers: []\n  initContainers: [text, {name: a}]\n"
    assert {found.rule for found in check_kubernetes(text, "pod.yaml")} <= {"no-memory-limit"}


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("stack.json", '{ "services": {"t": {"image": "a"}}}', "compose"),
        ("part.yaml", "t:\n  image: a\n", "compose"),
        ("run", "#!/usr/bin/env python3\ntritonserver --x\n", None),
        ("deploy", "containers:\n- image: a\n", "kubernetes"),
    ],
)
def test_detect(name: str, head: str, kind: Kind | None) -> None:
    """What a file is shows by its name and its first lines."""
    assert detect(name, head) == kind


@pytest.mark.parametrize(
    ("flags", "problems"),
    [
        ("--http-port=80 -- --nothing", []),
        ("--$NAME --http-port=80", []),
        ("--nothing value --http-port=80", ["unknown-flag"]),
        ("--nothing --http-port=80", ["unknown-flag"]),
        ("--nothing=1 --http-port=80", ["unknown-flag"]),
        ("-v 1 --http-port=80", ["unknown-flag"]),
        ("-v=1 --http-port=80", ["unknown-flag"]),
        ("--http-thread-count=many", ["invalid-flag-value"]),
        ("--exit-timeout-secs=", ["invalid-flag-value"]),
        ("--model-load-thread-count=x", ["invalid-flag-value"]),
        ("--log-verbose=much", ["invalid-flag-value"]),
        ("--metrics-interval-ms=x", ["invalid-flag-value"]),
        ("--min-supported-compute-capability=x", ["invalid-flag-value"]),
    ],
)
def test_flags(flags: str, problems: list[str]) -> None:
    """Options that are none, and values that the server cannot read."""
    command = parse_server_command([Word(text, 1) for text in flags.split()], 1)
    assert [row.rule for row in command.problems] == problems


def test_options_alone() -> None:
    """Words without a program are taken for tritonserver's."""
    assert {found.rule for found in check_command_line(["--exit-on-error=0"], "cmd")} >= {"exit-on-error-off", "no-tls"}


def test_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """YAML of more values than any deployment has is not read to its end."""
    monkeypatch.setattr(yamltree, "MAX_NODES", 3)
    documents, problem = read_yaml("[1, 2, 3, 4, 5]")
    assert documents == []
    assert "more than 3 values" in str(problem)


def test_a_heredoc_of_another_kind() -> None:
    """A document that is no deployment is left alone."""
    assert check_shell("cat > a.txt <<END\nhello\nEND\n", "run.sh") == []
