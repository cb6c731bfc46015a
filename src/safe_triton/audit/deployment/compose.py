"""Compose files as containers: short and long forms, ``extends``, interpolation with its defaults."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

from safe_triton.audit.deployment.container import Container, Mount, Variable, is_unlimited
from safe_triton.audit.deployment.docker_run import is_public_port, read_security_options, read_short_volume, user_of
from safe_triton.audit.deployment.images import is_triton_image
from safe_triton.audit.deployment.shell import parse_shell
from safe_triton.audit.deployment.words import Word, expand_compose
from safe_triton.audit.deployment.yamltree import ABSENT, Node


def services_of(root: Node) -> dict[str, Node]:
    """Return a file's services; the oldest form has them on top."""
    if root["services"].kind == "mapping":
        return {name: node for name, node in root["services"].fields.items() if node.kind == "mapping"}
    if root["services"] or root["kind"]:
        return {}
    return {name: node for name, node in root.fields.items() if node["image"] or node["build"]}


def read_compose(root: Node) -> list[Container]:
    """Return the containers of one document."""
    services = services_of(root)
    internal = {name for name, node in root["networks"].fields.items() if node["internal"].is_true}
    boxes = [_read_service(name, _extended(node, services), internal) for name, node in services.items()]
    for box in boxes:
        box.mounts = [_of_the_host(mount, root["volumes"]) for mount in box.mounts]
        for name, line in box.networks.items():
            network = root["networks"].fields.get(name, ABSENT)
            if "host" in {network["name"].text, network["driver"].text, network["external.name"].text}:
                box.host_namespaces.setdefault("network", line)
    if not any(box.is_triton for box in boxes):
        for box in boxes:
            # Nothing here has Triton's name: images of one's own do not say what is in them.
            box.is_triton = any(re.search(r"models?\b|repositor", mount.target) for mount in box.mounts) or bool(
                box.gpus != "absent" or re.search(r"triton|infer|predict|serving|model", box.name, re.IGNORECASE)
            )
    for box in boxes:
        box.is_strict = box.is_triton
    return boxes


def _extended(node: Node, services: dict[str, Node]) -> Node:
    """A service with what it takes over from another one of the same file."""
    seen = {id(node)}
    merged = Node(node.line, kind="mapping", fields=dict(node.fields), keys=dict(node.keys))
    while True:
        name = node["extends.service"].text or node["extends"].text
        base = services.get(name)
        if base is None or id(base) in seen or node["extends.file"]:
            return merged
        for key, value in base.fields.items():
            merged.fields.setdefault(key, value)
            merged.keys.setdefault(key, base.keys[key])
        seen.add(id(base))
        node = base


def _word(node: Node) -> Word:
    return Word(expand_compose(node.text), node.line + (node.style in {"|", ">"}))


def _words(node: Node) -> list[Word]:
    """A list, or one text."""
    return [_word(item) for item in node.listed]


def _pairs(node: Node) -> Iterator[Variable]:
    """``[NAME=value]`` or ``{NAME: value}``."""
    for item in node.items:
        name, has_value, value = item.text.partition("=")
        if has_value:
            yield Variable(name.strip(), expand_compose(value), item.line)
    for name, value_node in node.fields.items():
        if value_node:
            yield Variable(name, expand_compose(value_node.text), node.line_of(name))


def command_words(node: Node) -> list[Word]:
    """A command as a list, or as one text that is split like a shell's, and run by none."""
    if node.kind == "list":
        return _words(node)
    if not node:
        return []
    word = _word(node)
    # Compose knows no comments: what follows a # is passed on.
    script = parse_shell(re.sub(r"(?:^|(?<=\s))#", r"\\#", re.sub(r"\\?\n", " ", word.text)), word.line)
    return [one for command in script.commands[:1] for one in command.words]


def _read_service(name: str, node: Node, internal: set[str]) -> Container:
    box = Container(origin="compose", name=name, line=node.line - 1 if node.line > 1 else 1)
    image = node["image"]
    if image:
        box.image = Word(expand_compose(image.text), image.line)
    elif node["build"]:
        # The Dockerfile tells who it runs as.
        box.user = "unknown"
    box.command = [*command_words(node["entrypoint"]), *command_words(node["command"])]
    runs = any(re.search(r"(^|/|\s)tritonserver(\s|$)", word.text) for word in box.command)
    named = box.image is not None and is_triton_image(box.image.text)
    box.is_triton = runs or (named and not box.is_gateway)
    privileged = expand_compose(node["privileged"].text).lower()
    if privileged in {"true", "yes", "on", "y"}:
        box.privileged_line = node["privileged"].line
    user = node["user"]
    if user:
        box.user, box.user_line = user_of(expand_compose(user.text)), user.line
    box.added_caps = _words(node["cap_add"])
    box.drops_all_caps = any(word.text.upper() == "ALL" for word in _words(node["cap_drop"]))
    box.is_rootfs_read_only = node["read_only"].is_true
    read_security_options(box, _words(node["security_opt"]))
    for which, key in (("network", "network_mode"), ("pid", "pid"), ("ipc", "ipc")):
        if node[key].text == "host":
            box.host_namespaces[which] = node[key].line
    networks = node["networks"]
    joined = list(networks.fields) or [item.text for item in networks.items]
    box.networks = {name: networks.keys.get(name, networks.line) for name in joined}
    box.is_network_isolated = (bool(joined) and set(joined) <= internal) or node["network_mode"].text == "none"
    box.environment = list(_pairs(node["environment"]))
    box.mounts = [*_volumes(node["volumes"])]
    box.devices = [Word(word.text.split(":")[0], word.line) for word in _words(node["devices"])]
    if node["shm_size"]:
        box.shm = _word(node["shm_size"])
    box.public_ports = [*_ports(node["ports"])]
    _read_limits(box, node)
    _read_gpus(box, node)
    return box


def _of_the_host(mount: Mount, volumes: Node) -> Mount:
    """A mount, whose source is the host's folder where a named volume is bound to one."""
    device = volumes.fields.get(mount.source, ABSENT)["driver_opts.device"]
    if mount.is_host or not device.text.startswith(("/", "~", ".")):
        return mount
    return dataclasses.replace(mount, source=expand_compose(device.text), is_host=True)


def _volumes(node: Node) -> Iterator[Mount]:
    for item in node.items:
        if item.kind == "mapping":
            source = expand_compose(item["source"].text)
            yield Mount(
                source=source,
                target=expand_compose(item["target"].text),
                is_host=item["type"].text == "bind" or source.startswith(("/", ".", "~")),
                is_read_only=item["read_only"].is_true or item["type"].text == "image",
                line=item.line,
            )
        else:
            yield read_short_volume(_word(item))


def _ports(node: Node) -> Iterator[Word]:
    for item in node.items:
        if item.kind == "mapping":
            host = expand_compose(item["host_ip"].text)
            if item["published"] and is_public_port(f"{host}:1:1" if host else "1:1"):
                yield Word(f"{item['published'].text}:{item['target'].text}", item.line)
        elif is_public_port(expand_compose(item.text)):
            yield _word(item)


def _read_limits(box: Container, node: Node) -> None:
    limits = node["deploy.resources.limits"]
    box.resources_line = node.line_of("deploy") if limits else box.line

    def has(*nodes: Node) -> bool:
        return any(bool(one) and not is_unlimited(one.text) for one in nodes)

    box.has_memory_limit = has(limits["memory"], node["mem_limit"])
    box.has_cpu_limit = has(limits["cpus"], node["cpus"], node["cpu_quota"], node["cpuset"], node["cpu_count"])
    box.has_pids_limit = has(limits["pids"], node["pids_limit"])


def _read_gpus(box: Container, node: Node) -> None:
    asked = [*node["deploy.resources.reservations.devices"], *node["gpus"]]
    visible = [one for one in box.environment if one.name == "NVIDIA_VISIBLE_DEVICES"]
    for one in asked:
        # The oldest form is a list of lists.
        groups = one["capabilities"].items
        capabilities = {item.text for group in groups for item in (group, *group.items)}
        if one["driver"].text not in {"", "nvidia", "cdi"} or (one["driver"].text == "" and "gpu" not in capabilities):
            continue
        ids, count = one["device_ids"], one["count"]
        names = {item.text.lower() for item in ids}
        is_bounded = (names and not any(name.endswith("all") for name in names)) or (
            count and count.text not in {"all", "-1"}
        )
        box.gpus, box.gpus_line = ("bounded" if is_bounded else "all"), (count.line or one.line)
    if node["gpus"].kind == "scalar" and node["gpus"]:
        box.gpus, box.gpus_line = ("all" if node["gpus"].text == "all" else "bounded"), node["gpus"].line
    if node["runtime"].text == "nvidia" and not asked and not visible:
        box.gpus, box.gpus_line = "all", node["runtime"].line
    for device in box.devices:
        if device.text.startswith("nvidia.com/gpu"):
            box.gpus, box.gpus_line = ("all" if device.text.endswith("=all") else "bounded"), device.line
    for variable in visible:
        if variable.value.lower() == "all":
            box.gpus, box.gpus_line = "all", variable.line
        elif box.gpus == "absent":
            box.gpus = "bounded"
