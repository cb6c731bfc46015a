"""The instructions of ``Dockerfile.test`` as one shell script, run in the order of the file in a root of its own.

What a builder would add as layers is mounted instead, in a mount namespace that ends with the script: the machine's ``/usr``
read-only in the place of the image, its ``/etc`` with changes kept aside, and empty folders for everything else.

Does not cover:
    FROM: the image's own files and Python are the machine's. ENTRYPOINT of the image itself. Memory and process limits.
"""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from string import Template

from safe_triton.audit.deployment.dockerfile import Instruction, read_instructions

BASE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# What an image brings. /etc is writable for useradd; nothing of it reaches the machine's.
PREPARE = """
set -eu
root=$1
mount --bind "$root" "$root"
mkdir -p "$root"/{usr,etc,dev,proc,tmp,home,root,run,var/tmp,opt,project} "$root".etc/{upper,work}
for name in bin sbin lib lib64; do
    if [ -h "/$name" ]; then ln -s "$(readlink "/$name")" "$root/$name"; fi
done
mount --bind /usr "$root/usr"
mount -o remount,bind,ro "$root/usr"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$root.etc/upper,workdir=$root.etc/work" "$root/etc"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777,exec tmpfs "$root/tmp"
"""

# As compose.test.yaml runs it: nothing to write but /tmp and /dev/shm, no privileges, no network but loopback.
CLOSE = """
mount -o remount,bind,ro "$root"
mount -o remount,bind,ro "$root/etc"
ip link set lo up
"""


def words(rest: str) -> list[str]:
    """Return an instruction's words, lines joined."""
    return shlex.split(rest.replace("\\\n", " "))


def copied(rest: str) -> tuple[list[str], str]:
    """Return what a COPY names, and where it goes."""
    *sources, target = [word for word in words(rest) if not word.startswith("--")]
    return sources, target


def variables(rest: str, known: dict[str, str]) -> dict[str, str]:
    """Return the variables of an ENV with those that are known put in."""
    pairs = (word.partition("=") for word in words(rest))
    return {name: Template(value).substitute(known) for name, _, value in pairs}


def inside(environment: dict[str, str], folder: str, command: str, *, user: str = "") -> str:
    """Return the line that runs a shell command in the root, with this environment and nothing of the caller's."""
    settings = " ".join(shlex.quote(f"{name}={value}") for name, value in environment.items())
    place = f"cd {shlex.quote(folder)} && {command}"
    who = ""
    if user:
        uid, _, gid = user.partition(":")
        who = f"setpriv --reuid {uid} --regid {gid} --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs "
    return f'chroot "$root" {who}env -i {settings} /bin/sh -c {shlex.quote(place)}'


def script(
    instructions: list[Instruction], context: Path, build: dict[str, str], mounts: str, arguments: list[str]
) -> str:
    """Return the script: build the root by the file's instructions, close it, run its entry point.

    Args:
        instructions: Of one stage.
        context: The build context, the folder that COPY reads.
        build: Variables of the build alone, as ``--build-arg`` or the machine's settings of pip would give them.
        mounts: Lines for what the image of FROM has and the machine has elsewhere.
        arguments: For the entry point.
    """
    lines, environment, folder, user = [PREPARE, mounts], {"PATH": BASE_PATH, "HOME": "/root"}, "/", ""
    for one in instructions:
        if one.word == "ENV":
            environment |= variables(one.rest, environment)
        elif one.word == "WORKDIR":
            folder = one.rest
        elif one.word == "COPY":
            sources, target = copied(one.rest)
            place = f'"$root"{shlex.quote(f"{folder}/{target}")}'
            lines.append(f"mkdir -p $(dirname {place})")
            for source in sources:
                merged = "/." if (context / source).is_dir() else ""
                if merged:
                    lines.append(f"mkdir -p {place}")
                lines.append(f"cp -r {shlex.quote(str(context / source))}{merged} {place}")
        elif one.word == "RUN":
            lines.append(inside({**environment, **build}, folder, one.rest))
        elif one.word == "USER":
            user = one.rest
        elif one.word == "ENTRYPOINT":
            command = shlex.join([*json.loads(one.rest), *arguments])
            lines += [CLOSE, inside(environment, folder, command, user=user)]
        else:
            assert one.word in {"ARG", "FROM"}, f"{one.word} is not run here"
    return "\n".join(lines)


def instructions_of(file: Path) -> list[Instruction]:
    """Return a Dockerfile's instructions."""
    return list(read_instructions(file.read_text(encoding="utf-8")))
