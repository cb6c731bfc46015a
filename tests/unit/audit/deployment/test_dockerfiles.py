"""Dockerfiles: the last stage counts, with what it inherits."""

from __future__ import annotations

import pytest

from safe_triton.audit.deployment import check_dockerfile

IMAGE = "nvcr.io/nvidia/tritonserver:26.07-py3"


def rules_of(text: str) -> set[str]:
    """Return the names of the rules that a Dockerfile breaks."""
    return {found.rule for found in check_dockerfile(text, "Dockerfile")}


class TestUser:
    @pytest.mark.parametrize(
        ("lines", "is_root"),
        [
            ([], True),
            (["USER root"], True),
            (["USER 0"], True),
            (["USER 0:0"], True),
            (["USER 1000", "RUN x", "USER root"], True),
            (["USER root", "RUN x", "USER triton-server"], False),
            (["user 1000:1000"], False),
            (["ARG UID=0", "USER ${UID}"], True),
            (["ARG UID=1000", "USER $UID"], False),
            (["ARG UID", "USER $UID"], False),
            (["ENV U=root", "USER ${U:-app}"], True),
            (["# USER 1000"], True),
            (["RUN a \\", "# comment", "USER 1000"], True),
            (["RUN <<EOF", "USER 1000", "EOF"], True),
            (["RUN cat <<-'E-1' >/x", "USER 1000", "\tE-1"], True),
            (["COPY <<A <<B /x/", "USER 1000", "A", "USER 1000", "B"], True),
            (["RUN echo $((1<<2))", "USER 1000"], False),
            (["RUN bash -c 'cat <<<hello'", "USER 1000"], False),
            (["RUN cat << EOF", "USER 1000"], False),
            (["RUN <<EOF", "USER 1000", "EOF" + " " * 300, "USER 1000"], False),
            (["RUN <<EOF", "USER 1000"], False),
            (["ONBUILD USER 1000"], True),
        ],
    )
    def test_the_last_one_counts(self, lines: list[str], is_root: bool) -> None:
        """The last USER of the last stage decides, after its variables."""
        assert ("run-as-root" in rules_of("\n".join([f"FROM {IMAGE}", *lines]))) is is_root

    @pytest.mark.parametrize(
        ("text", "is_root"),
        [
            (f"FROM {IMAGE} AS a\nUSER 1000\nFROM {IMAGE}\n", True),
            (f"FROM {IMAGE} AS a\nUSER 1000\nFROM a\n", False),
            (f"FROM {IMAGE} AS a\nUSER 1000\nFROM a AS b\nFROM b\nUSER root", True),
            (f"FROM {IMAGE} AS a\nFROM a\nUSER 5", False),
            ("FROM gcr.io/distroless/python3:nonroot\n", False),
            (f"# escape=`\nFROM {IMAGE}\nRUN a `\nUSER 1000\n", True),
        ],
    )
    def test_stages(self, text: str, is_root: bool) -> None:
        """A stage inherits from the one that it is made from, and from no other."""
        assert ("run-as-root" in rules_of(text)) is is_root


class TestImage:
    @pytest.mark.parametrize(
        "text",
        [
            "FROM nvcr.io/nvidia/tritonserver:24.10-py3",
            "FROM --platform=linux/amd64 nvcr.io/nvidia/tritonserver:23.10-py3 AS x",
            "ARG TAG=24.10-py3\nFROM nvcr.io/nvidia/tritonserver:${TAG}",
            "ARG BASE=nvcr.io/nvidia/tritonserver:24.10-py3\nFROM $BASE",
            "ARG V\nFROM nvcr.io/nvidia/tritonserver:${V:-24.10}-py3",
            "FROM nvcr.io/nvidia/tritonserver:24.10-py3 AS base\nFROM base",
            "FROM nvcr.io/nvidia/tritonserver:25.03-trtllm-python-py3@sha256:00",
            "from nvcr.io/nvidia/tritonserver:24.10-py3",
        ],
    )
    def test_outdated(self, text: str) -> None:
        """The release is found behind arguments, stages and digests."""
        assert "image-outdated" in rules_of(text)

    @pytest.mark.parametrize(
        "text",
        [
            f"FROM {IMAGE}",
            "FROM nvcr.io/nvidia/tritonserver:24.10-py3-sdk",
            "FROM nvcr.io/nvidia/pytorch:24.10-py3",
            "FROM nvcr.io/nvidia/tritonserver:23.10-py3 AS build\nFROM nvcr.io/nvidia/tritonserver:26.07-py3",
            "ARG TAG\nFROM nvcr.io/nvidia/tritonserver:${TAG}",
        ],
    )
    def test_not_outdated(self, text: str) -> None:
        """Newest releases, clients, other software and earlier stages are not."""
        assert "image-outdated" not in rules_of(text)

    @pytest.mark.parametrize("image", ["triton", "triton:latest", "reg:5000/triton", "triton:24.10", "triton:main"])
    def test_unpinned(self, image: str) -> None:
        """Without a digest an image is not pinned."""
        assert "image-unpinned" in rules_of(f"FROM {image}")

    @pytest.mark.parametrize("image", ["triton@sha256:00", "triton:1@sha256:00", "scratch", "$IMAGE"])
    def test_pinned(self, image: str) -> None:
        """With one it is; nothing is said of what is not known."""
        assert "image-unpinned" not in rules_of(f"FROM {image}")


class TestCommand:
    @pytest.mark.parametrize(
        "lines",
        [
            'CMD ["tritonserver", "--model-control-mode=explicit"]',
            'ENTRYPOINT ["tritonserver"]\nCMD ["--model-control-mode", "explicit"]',
            'ENTRYPOINT ["tritonserver", "--model-control-mode=explicit"]',
            "CMD tritonserver --model-control-mode=explicit",
            "CMD exec tritonserver --model-repository=/m \\\n    # a comment, which docker leaves out\n    --model-control-mode=explicit",
            "CMD tritonserver \\  \n  --model-control-mode=explicit",
            'ENTRYPOINT tritonserver --model-control-mode=explicit\nCMD ["ignored"]',
            'CMD ["sh", "-c", "tritonserver --model-control-mode=explicit"]',
            "ENV MODE=explicit\nCMD tritonserver --model-control-mode=$MODE",
            "ENV MODE explicit\nCMD tritonserver --model-control-mode=${MODE}",
            'CMD [ \\\n  "tritonserver", \\\n  "--model-control-mode=explicit" \\\n]',
        ],
    )
    def test_is_read(self, lines: str) -> None:
        """Both forms of both instructions lead to the command."""
        found = rules_of(f"FROM {IMAGE}\n{lines}\n")
        assert "restricted-api-missing" in found and "broken-continuation" not in found

    def test_a_script_in_a_document(self) -> None:
        """A script that a COPY holds is checked, on its own lines."""
        text = f"FROM {IMAGE}\nCOPY <<EOF /run.sh\n#!/bin/sh\ntritonserver --model-control-mode=explicit\nEOF\nUSER 5\n"
        found = [one for one in check_dockerfile(text, "D") if one.rule == "restricted-api-missing"]
        assert [one.line for one in found] == [4]

    @pytest.mark.parametrize(
        "lines",
        [
            'CMD ["tritonserver", "--model-control-mode=explicit"]\nCMD ["tritonserver", "--http-address=127.0.0.1"]',
            'CMD ["echo", "tritonserver"]',
            "RUN echo tritonserver --model-control-mode=explicit",
        ],
    )
    def test_what_does_not_start(self, lines: str) -> None:
        """The last CMD counts, and a RUN starts nothing."""
        assert "model-control-open" not in rules_of(f"FROM {IMAGE}\n{lines}\n")


class TestSecrets:
    @pytest.mark.parametrize(
        "line",
        [
            "ENV API_KEY=hunter2",
            "ENV API_KEY hunter2",
            "ARG PASSWORD=hunter2",
            'ENV A=1 DB_PASSWORD="hunter2"',
            "ENV X=hf_abcdefghijklmnopqrst",
            "ENV X=AKIAABCDEFGHIJKLMNOP",
            f"ENV X=AIza{'b' * 35}",
            f"ENV X=npm_{'c' * 36}",
            "ENV X=https://me:secret7@a/b",
        ],
    )
    def test_is_found(self, line: str) -> None:
        """A secret in an instruction stays in the image, of whichever stage."""
        assert "secrets-in-env" in rules_of(f"FROM {IMAGE}\n{line}\nFROM {IMAGE}\n")

    @pytest.mark.parametrize(
        "line", ["ARG PASSWORD", "ENV API_KEY=$API_KEY", "ENV TOKEN_FILE=/run/t", "ENV MAX_TOKENS=4"]
    )
    def test_is_clean(self, line: str) -> None:
        """A name without a value, or a reference, is none."""
        assert "secrets-in-env" not in rules_of(f"FROM {IMAGE}\n{line}\n")

    def test_gpus(self) -> None:
        """An image that asks for all GPUs by itself is named."""
        assert "all-gpus" in rules_of(f"FROM {IMAGE}\nENV NVIDIA_VISIBLE_DEVICES=all\n")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "FROM",
        "RUN x",
        "CMD [",
        'FROM a\nCMD ["a',
        "FROM a\nENV",
        "FROM a\nUSER",
        "\\",
        "FROM a\nRUN <<EOF",
        "ARG\nFROM $",
    ],
)
def test_broken_files(text: str) -> None:
    """What is no Dockerfile is read as far as it goes."""
    rules_of(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("FROM {old} AS t\nFROM ubuntu\nCOPY --from=t /opt /opt\nCMD tritonserver\n", "image-outdated"),
        ("FROM {old}\nFROM ubuntu\nCOPY --from=0 /opt /opt\n", "image-outdated"),
        ("FROM ubuntu\nCOPY --from={old} /opt /opt\n", "image-outdated"),
        ("FROM ubuntu\nRUN curl -H 'X: ghp_0123456789abcdefghijABCDEFGHIJ012345' https://a\n", "secrets-in-env"),
    ],
)
def test_what_a_stage_takes(text: str, rule: str) -> None:
    """A server that is copied out of an old image is that old; a token in a command stays in the history."""
    assert rule in rules_of(text.format(old="nvcr.io/nvidia/tritonserver:23.10-py3"))
