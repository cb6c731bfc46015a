"""Files, links, modes and special files of a repository; and that none of them hangs or ends the check."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from safe_triton.audit import check_paths
from tests.unit.audit.cases import CONFIG, MODEL, found, look, write

CLEAN = {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjE\n"


def levels(folder: Path) -> dict[str, str]:
    return found(check_paths([folder], jobs=1))


class TestLinks:
    def test_out_of_the_repository(self, tmp_path: Path) -> None:
        """A file, a folder and a whole model behind a link to somewhere else that can be read."""
        write(tmp_path, {"outside/secret.txt": "x", "outside/other/config.pbtxt": CONFIG.replace('"m"', '"other"')})
        for name, target in (("m/1/data.txt", "secret.txt"), ("m/1/data", ""), ("other", "other")):
            repository = write(tmp_path / f"r-{target}", CLEAN)
            (repository / name).symlink_to(tmp_path / "outside" / target)
            assert levels(repository)["symlink-escape"] == "error"

    def test_a_broken_one(self, tmp_path: Path) -> None:
        """A link out of the repository that leads nowhere today is a warning."""
        repository = write(tmp_path, CLEAN)
        (repository / "m/1/data").symlink_to("/nowhere/at/all")
        assert levels(repository)["symlink-escape"] == "warning"

    def test_inside(self, tmp_path: Path) -> None:
        """A link that stays below the repository is followed and is no finding."""
        repository = write(tmp_path, {"m/config.pbtxt": CONFIG, "m/1/real.py": MODEL, "n/1/x": ""})
        (repository / "m/1/model.py").symlink_to("real.py")
        assert "symlink-escape" not in levels(repository)

    def test_circles(self, tmp_path: Path) -> None:
        """A link to itself, to each other and to a folder above end the walk, not the check."""
        repository = write(tmp_path, CLEAN)
        (repository / "m/1/self").symlink_to("self")
        (repository / "m/1/a").symlink_to("b")
        (repository / "m/1/b").symlink_to("a")
        (repository / "m/1/up").symlink_to("../..")
        report = check_paths([repository], jobs=1)
        assert {Path(f.path).name for f in report.findings if f.rule == "symlink-escape"} == {"self", "a", "b", "up"}

    def test_a_linked_model_exists_for_ensembles(self, tmp_path: Path) -> None:
        """A model folder that is a link is served under its own name."""
        ensemble = (
            'name: "e"\nplatform: "ensemble"\nensemble_scheduling { step { model_name: "alias" model_version: 1 '
            'input_map { key: "X" value: "IN" } output_map { key: "Y" value: "OUT" } } }\n'
        )
        repository = write(tmp_path, {**CLEAN, "e/config.pbtxt": ensemble, "e/1/": ""})
        (repository / "alias").symlink_to("m")
        assert "ensemble-missing-model" not in levels(repository)


class TestSpecialFiles:
    def test_a_pipe_and_a_socket(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither is opened: reading a pipe would wait for ever."""
        repository = write(tmp_path, CLEAN)
        os.mkfifo(repository / "m/1/pipe")
        os.mkfifo(repository / "m/1/model.pkl")
        monkeypatch.chdir(repository / "m/1")
        listener = socket.socket(socket.AF_UNIX)
        try:
            listener.bind("socket")
            report = check_paths([repository], jobs=1)
        finally:
            listener.close()
        special = {Path(f.path).name for f in report.findings if f.rule == "special-file"}
        assert special == {"pipe", "model.pkl", "socket"}

    def test_a_pipe_in_place_of_the_configuration(self, tmp_path: Path) -> None:
        """The model is still one, and what could not be read is said."""
        repository = write(tmp_path, {"m/1/model.py": MODEL})
        os.mkfifo(repository / "m/config.pbtxt")
        assert {"special-file", "audit-unreadable"} <= levels(repository).keys()

    def test_a_pipe_as_the_path(self, tmp_path: Path) -> None:
        """Given by name it is a finding as well."""
        os.mkfifo(tmp_path / "config.pbtxt")
        assert levels(tmp_path / "config.pbtxt") == {"special-file": "warning"}

    def test_a_link_to_a_pipe(self, tmp_path: Path) -> None:
        """A link does not hide it."""
        repository = write(tmp_path, CLEAN)
        os.mkfifo(repository / "m/1/pipe")
        (repository / "m/1/weights.bin").symlink_to("pipe")
        report = check_paths([repository], jobs=1)
        assert [f.path for f in report.findings if f.rule == "special-file" and f.path.endswith("weights.bin")]


class TestModes:
    @pytest.mark.parametrize(
        ("name", "mode"), [("m/1/model.py", 0o646), ("m/1", 0o777), ("m", 0o1777), ("m/config.pbtxt", 0o666)]
    )
    def test_anyone_may_write(self, tmp_path: Path, name: str, mode: int) -> None:
        """A file, a version, a model, a configuration."""
        repository = write(tmp_path, CLEAN)
        (repository / name).chmod(mode)
        report = check_paths([repository], jobs=1)
        assert [Path(f.path) for f in report.findings if f.rule == "world-writable"] == [repository / name]

    def test_the_repository_itself(self, tmp_path: Path) -> None:
        """Whoever may write the repository's folder adds models to it."""
        repository = write(tmp_path, CLEAN)
        repository.chmod(0o777)
        assert levels(repository)["world-writable"] == "warning"

    def test_an_environment_that_the_group_may_write(self, tmp_path: Path) -> None:
        """What bash runs at load must not be writable by more than its owner."""
        config = CONFIG + (
            'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n'
        )
        repository = write(tmp_path, {**CLEAN, "m/config.pbtxt": config, "m/env.tar.gz": b""})
        (repository / "m/env.tar.gz").chmod(0o644)
        assert "exec-env-writable" not in levels(repository)
        (repository / "m/env.tar.gz").chmod(0o664)
        assert levels(repository)["exec-env-writable"] == "warning"


class TestNames:
    @pytest.mark.parametrize("name", ["a$(id)", "a`id`", "a;id", "a b", "a&b", "a|b", "a'b", "a\nb", "$HOME"])
    def test_a_model_folder_for_a_shell(self, tmp_path: Path, name: str) -> None:
        """The name of a Python model's folder reaches a shell at load."""
        report = look(
            tmp_path, {f"{name}/config.pbtxt": CONFIG.replace('name: "m"\n', ""), f"{name}/1/model.py": MODEL}
        )
        assert found(report)["shell-metacharacters"] == "error"

    def test_hidden(self, tmp_path: Path) -> None:
        """A hidden folder that the server serves, with and without a configuration."""
        files = {**CLEAN, ".h/config.pbtxt": CONFIG.replace('"m"', '".h"'), ".g/1/model.py": MODEL, ".cache/x": ""}
        report = look(tmp_path, files)
        hidden = [Path(f.path).name for f in report.findings if f.rule == "hidden-model-directory"]
        assert hidden == [".g", ".h"]

    @pytest.mark.parametrize(
        "name", ["01", "v2", "V2", "-1", "+1", "1.0", "2_old", "1-backup", "version1", "latest", "１", "1 "]
    )
    def test_no_version(self, tmp_path: Path, name: str) -> None:
        """Folders that the server ignores although somebody meant a version."""
        assert found(look(tmp_path, {**CLEAN, f"m/{name}/model.py": MODEL}))["version-dir-invalid"] == "warning"

    @pytest.mark.parametrize("name", ["warmup", "configs", "tokenizer", "utils", "assets_v"])
    def test_other_folders(self, tmp_path: Path, name: str) -> None:
        """What a model keeps beside its versions is no version."""
        assert "version-dir-invalid" not in found(look(tmp_path, {**CLEAN, f"m/{name}/x.txt": "x"}))


class TestSecrets:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("m/1/.env", "TOKEN=abcdef\n"),
            ("m/.env.production", "X=1\n"),
            ("m/1/id_rsa", KEY),
            ("m/1/server.pem", KEY),
            ("m/1/tls.key", KEY),
            ("m/1/notes.txt", KEY),
            ("m/1/.netrc", "machine x login y password z\n"),
            ("m/.aws/credentials", "[default]\naws_secret_access_key = abc\n"),
            ("m/.ssh/config", "Host x\n"),
            ("m/1/settings.json", '{"api_key": "9f8e7d6c5b4a3210fedc"}'),
            ("m/1/settings.yaml", "db_password: correct-horse-battery\n"),
            ("m/1/helper.py", 'TOKEN = "ghp_abcdefghijklmnopqrstuvwxyz0123456789"\n'),
            ("m/1/llm.py", "KEY = 'sk-proj-abcdefghijklmnopqrstuvwx1234567890abcd'\n"),
            ("m/1/db.py", "connect(user='u', password='Xy7kk2zzQ9w')\n"),
            ("m/1/service-account.json", '{"type": "service_account", "private_key_id": "1"}'),
            ("m/1/.git-credentials", "https://user:pass@example.org\n"),
            ("m/1/client.p12", "x"),
            ("id_ed25519", KEY),
            (".env", "TOKEN=abcdef\n"),
            ("shared/credentials.json", '{"password": "correct-horse-battery"}'),
        ],
    )
    def test_a_file_with_a_secret(self, tmp_path: Path, name: str, text: str) -> None:
        """By its name, by its folder or by what it holds."""
        assert found(look(tmp_path, {**CLEAN, name: text}))["secret-file-in-repo"] == "warning"

    def test_another_encoding(self, tmp_path: Path) -> None:
        """A text in UTF-16 is a text."""
        report = look(tmp_path, {**CLEAN, "m/1/notes.txt": "ghp_abcdefghijklmnopqrstuvwxyz0123456789".encode("utf-16")})
        assert found(report)["secret-file-in-repo"] == "warning"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("m/1/tokenizer.json", '{"token": "<s>", "eos_token": "</s>", "vocab": {"password": 1, "secret": 2}}'),
            ("m/1/tokenizer_config.json", '{"tokenizer_class": "BertTokenizer", "pad_token": "[PAD]"}'),
            ("m/1/labels.txt", "password\nsecret\ntoken\n"),
            ("m/1/ca.pem", "-----BEGIN CERTIFICATE-----\nMIIB\n"),
            ("m/1/.env.example", "TOKEN=\n"),
            ("m/1/keys.py", "KEY = 'x'\npassword = getpass.getpass()\n"),
            ("m/1/config.json", '{"hidden_size": 768, "bos_token_id": 1}'),
            ("m/1/tokens.txt", "a b c\n"),
            ("m/1/names.py", "TOKEN_NAME = 'a1b2c3d4e5'\npad_token = '[PAD]'\ntoken = 'beginning'\n"),
        ],
    )
    def test_a_file_without(self, tmp_path: Path, name: str, text: str) -> None:
        """Vocabularies, certificates and templates hold the words and no secret."""
        assert "secret-file-in-repo" not in found(look(tmp_path, {**CLEAN, name: text}))


class TestLimits:
    def test_deep_folders(self, tmp_path: Path) -> None:
        """What lies deeper than the check looks is said, as an error."""
        folder = tmp_path / "r"
        folder.mkdir()
        deep = folder
        for _ in range(80):
            deep = deep / "d"
            deep.mkdir()
        assert levels(folder)["audit-limit"] == "error"

    def test_a_file_that_goes_away(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A file that cannot be opened any more is a finding."""
        from safe_triton.audit import work
        from safe_triton.audit.reading import UnreadableError

        def gone(path: str, limit_bytes: int) -> bytes:
            raise UnreadableError("it cannot be opened: No such file or directory")

        monkeypatch.setattr(work, "read_bounded", gone)
        assert levels(write(tmp_path, CLEAN))["audit-unreadable"] == "warning"

    def test_a_crash_is_an_error(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A checker that raises never passes for one that found nothing; the others go on."""
        from safe_triton.audit.repository import resources

        def crash(config: object) -> object:
            raise RecursionError("too deep")

        monkeypatch.setattr(resources, "check_invalid", crash)
        seen = levels(write(tmp_path, {**CLEAN, "m/config.pbtxt": CONFIG + "response_cache { enable: true }\n"}))
        assert seen["audit-crash"] == "error"
        assert "response-cache-shared" in seen

    def test_a_name_that_is_no_text(self, tmp_path: Path) -> None:
        """A file name outside UTF-8 is looked at like any other."""
        repository = write(tmp_path, CLEAN)
        with open(os.path.join(os.fsencode(repository), b"m/1/\xff.env"), "wb") as file:
            file.write(KEY.encode())
        assert levels(repository)["secret-file-in-repo"] == "warning"
