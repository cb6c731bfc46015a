"""Images that hold Triton: how they are recognised, which release they are, which vulnerabilities that has."""

from __future__ import annotations

import re

from safe_triton.audit.cves import cve_table
from safe_triton.audit.deployment.container import parse_image
from safe_triton.audit.deployment.words import Word, basename, is_unknown
from safe_triton.audit.finding import Finding

_RELEASE = re.compile(r"(?<![\d.])([12]\d\.(?:0[1-9]|1[0-2]))(?![\d.])")
_VERSION = re.compile(r"(?<![\d.])(2\.\d{1,2}(?:\.\d+)?)(?![\d.])")
_FLOATING = frozenset({"", "latest", "main", "master", "stable", "dev", "nightly", "edge"})
NAMED_CVES = 5


def is_triton_image(reference: str) -> bool:
    """Tell whether an image holds Triton, by its name: NVIDIA's, a mirror's, or one that says so."""
    return bool(re.search(r"triton|tensorrtserver", parse_image(reference).repository, re.IGNORECASE))


def release_of(reference: str) -> str:
    """Return the container release that an image's tag names, such as ``24.10``; empty when it names none.

    Does not cover:
        Images known by a digest only, and names of one's own such as ``inference:7``.
    """
    image = parse_image(reference)
    if not is_triton_image(reference):
        return ""
    found = _RELEASE.search(image.tag)
    if found is not None:
        return found[1]
    version = _VERSION.search(image.tag)
    # A name of one's own may count its own versions: only the server's name makes 2.51.0 a version of the server.
    if version is None or not re.search(r"tritonserver|triton-inference-server", image.repository, re.IGNORECASE):
        return ""
    return cve_table().container_of(version[1]) or ""


def judge_image(word: Word, shown: str) -> list[Finding]:
    """Return what is to say about one image reference."""
    image = parse_image(word.text)
    if not image.repository or image.repository == "scratch" or is_unknown(image.repository):
        return []
    found: list[Finding] = []
    if not image.digest and not is_unknown(image.tag):
        if image.tag.lower() in _FLOATING:
            text = f"{word.text} is whatever is newest at the next start; name a release and its digest"
        else:
            text = f"{word.text} can be replaced under its tag; add its digest, @sha256:…"
        found.append(Finding(rule="image-unpinned", path=shown, line=word.line, message=text))
    # The SDK image holds clients, not the server.
    release = "" if re.search(r"(^|-)sdk\b", image.tag) else release_of(word.text)
    if release:
        found += judge_release(release, basename(image.repository), word.line, shown)
    return found


def judge_release(release: str, name: str, line: int, shown: str) -> list[Finding]:
    """Return the vulnerabilities of one container release as at most one finding."""
    table = cve_table()
    rows = table.open_in(release)
    if not rows:
        return []
    named = ", ".join(f"{row.cve} ({row.cvss:g})" for row in rows[:NAMED_CVES])
    more = f" and {len(rows) - NAMED_CVES} more" if len(rows) > NAMED_CVES else ""
    first = table.first_without(release)
    known = f"{len(rows)} known vulnerabilities as of {table.read}"
    text = f"{name} {release} has {known}: {named}{more}; all fixed in {first}"
    fix = f"use release {first} or later, such as nvcr.io/nvidia/tritonserver:{first}-py3"
    return [Finding(rule="image-outdated", path=shown, line=line, message=text, fix=fix)]
