"""``docker run`` (podman, nerdctl) command lines as containers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from safe_triton.audit.deployment.container import Container, Mount, User, Variable, is_unlimited
from safe_triton.audit.deployment.images import is_triton_image
from safe_triton.audit.deployment.words import Word, basename

PROGRAMS = frozenset({"docker", "podman", "nerdctl", "nvidia-docker", "docker.io"})
_MANAGEMENT = frozenset({"container"})
_GLOBAL_WITH_VALUE = frozenset(
    {"--context", "-c", "--host", "-H", "--config", "--log-level", "-l", "--namespace", "-n"}
)
_SWITCH_WORDS = (
    "--detach -d --init --interactive -i --tty -t --rm --privileged --read-only --publish-all -P --no-healthcheck "
    "--oom-kill-disable --sig-proxy --disable-content-trust --quiet -q --help --replace --tls-verify --no-hosts "
    "--rmi --use-api-socket"
)
_SWITCHES = frozenset(_SWITCH_WORDS.split())
_SHORT = {"v": "volume", "p": "publish", "e": "env", "u": "user", "m": "memory", "P": "publish-all", "w": "workdir"}


@dataclass
class _Options:
    values: dict[str, list[Word]] = field(default_factory=dict)

    def all(self, *names: str) -> list[Word]:
        return [word for name in names for word in self.values.get(name, [])]

    def last(self, *names: str) -> Word | None:
        found = self.all(*names)
        return found[-1] if found else None


def read_docker_run(words: Sequence[Word]) -> Container | None:
    """Return the container that a command starts; ``None`` when it starts none.

    Args:
        words: the whole command, from ``docker`` on.
    """
    at = 1
    while at < len(words) and (words[at].text.startswith("-") or words[at].text in _MANAGEMENT):
        at += 2 if words[at].text in _GLOBAL_WITH_VALUE else 1
    if at >= len(words) or words[at].text not in {"run", "create"}:
        return None
    options, at = _read_options(words, at + 1)
    if at >= len(words):
        return None
    image = words[at]
    name = options.last("name")
    box = Container(
        origin="docker run",
        name=name.text if name else "",
        line=words[0].line,
        image=image,
        command=[*_entrypoint(options), *words[at + 1 :]],
    )
    _fill(box, options, is_nvidia=basename(words[0].text) == "nvidia-docker")
    runs = any(basename(word.text) == "tritonserver" or "tritonserver " in word.text for word in box.command)
    box.is_strict = box.is_triton = runs or is_triton_image(image.text)
    return box


def _entrypoint(options: _Options) -> list[Word]:
    word = options.last("entrypoint")
    return [word] if word is not None and word.text else []


def _read_options(words: Sequence[Word], at: int) -> tuple[_Options, int]:
    """Read up to the image."""
    options = _Options()
    while at < len(words):
        word = words[at]
        text = word.text
        if not text.startswith("-") or text == "-":
            # A variable that holds further options is no image; one that stands last is.
            if not _is_more_options(word, words[at + 1 :]):
                break
            at += 1
            continue
        at += 1
        if text == "--":
            break
        if not text.strip("-").strip():
            continue
        name, has_value, value = text.partition("=")
        if not text.startswith("--"):
            at = _short(options, word, words, at)
        elif name in _SWITCHES:
            options.values.setdefault(name[2:], []).append(Word(value or "true", word.line))
        elif has_value:
            options.values.setdefault(name[2:], []).append(Word(value, word.line, word.is_dynamic))
        elif at < len(words):
            options.values.setdefault(name[2:], []).append(Word(words[at].text, word.line, words[at].is_dynamic))
            at += 1
    return options, at


def _is_more_options(word: Word, rest: Sequence[Word]) -> bool:
    """Whether an unknown variable in the image's place is rather a list of options, since an image follows."""
    if not word.is_dynamic or not word.text.startswith("$") or re.match(r"\$\{?\w*IMA?GE?", word.text, re.IGNORECASE):
        return False
    return any(later.text and not later.text.startswith("-") for later in rest)


def _short(options: _Options, word: Word, words: Sequence[Word], at: int) -> int:
    """Read ``-it``, ``-p 80:80``, ``-p80:80``."""
    letters = word.text[1:]
    for number, letter in enumerate(letters):
        if f"-{letter}" in _SWITCHES:
            options.values.setdefault(_SHORT.get(letter, letter), []).append(Word("true", word.line))
            continue
        value = letters[number + 1 :].removeprefix("=")
        if not value and at < len(words):
            value = words[at].text
            at += 1
        options.values.setdefault(_SHORT.get(letter, letter), []).append(Word(value, word.line))
        break
    return at


def _fill(box: Container, options: _Options, *, is_nvidia: bool) -> None:
    privileged = options.last("privileged")
    if privileged is not None and privileged.text.lower() not in {"false", "0"}:
        box.privileged_line = privileged.line
    user = options.last("user")
    if user is not None:
        box.user_line, box.user = user.line, user_of(user.text)
    box.added_caps = options.all("cap-add")
    box.drops_all_caps = any(word.text.upper() == "ALL" for word in options.all("cap-drop"))
    read_only = options.last("read-only")
    box.is_rootfs_read_only = read_only is not None and read_only.text.lower() != "false"
    read_security_options(box, options.all("security-opt"))
    for which, names in (("network", ("network", "net")), ("pid", ("pid",)), ("ipc", ("ipc",))):
        word = options.last(*names)
        if word is not None and word.text == "host":
            box.host_namespaces[which] = word.line
    network = options.last("network", "net")
    box.is_network_isolated = network is not None and network.text not in {"host", "bridge", "default"}
    box.mounts = [*map(read_short_volume, options.all("volume")), *_long_mounts(options.all("mount"))]
    box.devices = [Word(word.text.split(":")[0], word.line) for word in options.all("device")]
    memory = options.last("memory")
    box.has_memory_limit = memory is not None and not is_unlimited(memory.text)
    box.has_cpu_limit = bool(options.all("cpus", "cpu-quota", "cpuset-cpus"))
    pids = options.last("pids-limit")
    box.has_pids_limit = pids is not None and not is_unlimited(pids.text)
    box.shm = options.last("shm-size")
    for word in options.all("env"):
        name, has_value, value = word.text.partition("=")
        if has_value:
            box.environment.append(Variable(name, value, word.line))
    box.public_ports = [word for word in options.all("publish") if is_public_port(word.text)]
    everything = options.last("publish-all")
    if everything is not None and everything.text != "false":
        box.public_ports.append(Word("of every EXPOSE", everything.line))
    _read_gpus(box, options, is_nvidia=is_nvidia)


def _read_gpus(box: Container, options: _Options, *, is_nvidia: bool) -> None:
    gpus = options.last("gpus")
    runtime = options.last("runtime")
    visible = [one for one in box.environment if one.name == "NVIDIA_VISIBLE_DEVICES"]
    if gpus is not None:
        text = gpus.text.strip("\"' ").lower()
        bounded = re.search(r"device=(?!all)|count=\d|^\d+$", text)
        box.gpus, box.gpus_line = ("bounded" if bounded else "all"), gpus.line
    elif is_nvidia or (runtime is not None and runtime.text == "nvidia"):
        box.gpus, box.gpus_line = "all", runtime.line if runtime is not None else box.line
        if visible:
            box.gpus = "bounded"
    for device in options.all("device"):
        if device.text.startswith("nvidia.com/gpu="):
            box.gpus, box.gpus_line = ("all" if device.text.endswith("=all") else "bounded"), device.line
    for one in visible:
        if one.value.lower() == "all":
            box.gpus, box.gpus_line = "all", one.line


# -- shared with compose --------------------------------------------------------------------------------------------


def user_of(text: str) -> User:
    """Tell who ``user[:group]`` is."""
    name = text.strip().split(":")[0]
    return "root" if name in {"0", "root", ""} else "unknown" if name.startswith("$") else "other"


def read_security_options(box: Container, options: Sequence[Word]) -> None:
    """Take over ``no-new-privileges`` and switched off filters."""
    for word in options:
        key, _, value = re.sub(r"[:=]", "=", word.text.strip().lower(), count=1).partition("=")
        if key == "no-new-privileges":
            box.escalation_line = -1 if value in {"", "true"} else word.line
        elif key in {"seccomp", "apparmor", "systempaths"} and value == "unconfined":
            box.seccomp, box.seccomp_line = "unconfined", word.line


def read_short_volume(word: Word) -> Mount:
    """Read ``source:target[:options]``; a name without a path is a named volume."""
    parts = re.split(r":(?![^{]*\})", word.text)
    source, target = (parts[0], parts[1]) if len(parts) > 1 else ("", parts[0])
    options = parts[2].split(",") if len(parts) > 2 else []
    return Mount(
        source=source,
        target=target,
        is_host=source.startswith(("/", ".", "~", "$")),
        is_read_only="ro" in options or "readonly" in options,
        line=word.line,
    )


def _long_mounts(words: Sequence[Word]) -> Iterator[Mount]:
    """Read ``--mount type=bind,source=…,target=…,readonly``."""
    for word in words:
        fields = dict(part.partition("=")[::2] for part in word.text.split(","))
        flag = fields.get("readonly", fields.get("ro", "false"))
        yield Mount(
            source=fields.get("source", fields.get("src", "")),
            target=fields.get("target", fields.get("destination", fields.get("dst", ""))),
            is_host=fields.get("type", "volume") == "bind",
            is_read_only=flag.lower() in {"", "true", "1"},
            line=word.line,
        )


def is_public_port(text: str) -> bool:
    """Tell whether ``[address:][host port:]container port`` is reachable from other machines."""
    text = text.strip().strip("\"'").split("/")[0]
    if text.startswith("["):
        address = text[1:].split("]")[0]
    else:
        parts = re.split(r":(?![^{]*\})", text)
        address = ":".join(parts[:-2])
    return not re.fullmatch(r"127\.\d+\.\d+\.\d+|::1|localhost", address) and not address.startswith("$")
