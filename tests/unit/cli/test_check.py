"""``safe-triton check``, ``rules`` and ``explain``: output, exit status, suppressions, baseline, repairs."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from typer.testing import CliRunner, Result

from safe_triton.audit import check_paths
from safe_triton.audit.rules.table import ALL
from safe_triton.cli.app import app
from tests.unit.audit.cases import CONFIG, ENSEMBLE, MODEL, POLICY, write

CLEAN = {"m/config.pbtxt": CONFIG, "m/1/model.py": MODEL}
ALL_VERSIONS = CONFIG.replace(POLICY, "version_policy { all { } }")
SCHEMA = Path(__file__).parent / "schemas" / "sarif-2.1.0.json"


def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["check", "--jobs", "1", *arguments], input=stdin)


def rules_of(result: Result) -> list[str]:
    return [each["rule"] for each in json.loads(result.stdout)["findings"]]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clean repository below the working folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "r", CLEAN)
    return Path("r")


@pytest.fixture
def bad(repository: Path) -> Path:
    """The same with one warning."""
    (repository / "m/config.pbtxt").write_text(ALL_VERSIONS)
    return repository


class TestStatus:
    def test_clean(self, repository: Path) -> None:
        """Without findings the status is 0, and the text says what was looked at."""
        result = run(str(repository))
        assert result.exit_code == 0
        assert result.stdout == "no findings; 1 models, 2 files looked at\n"

    @pytest.mark.parametrize(("level", "status"), [(None, 1), ("info", 1), ("warning", 1), ("error", 0)])
    def test_fail_on(self, bad: Path, level: str | None, status: int) -> None:
        """A warning fails the check from --fail-on warning on, which is the default."""
        assert run(str(bad), *(["--fail-on", level] if level else [])).exit_code == status

    @pytest.mark.parametrize("arguments", [["nowhere"], ["r", "nowhere"], ["empty"], ["r", "--policy", "nowhere.toml"]])
    def test_could_not_look(self, repository: Path, arguments: list[str]) -> None:
        """A path that is not there, or holds nothing to check, is status 2 with one line."""
        Path("empty").mkdir()
        result = run(*arguments)
        assert result.exit_code == 2
        assert result.stderr.startswith("safe-triton: ")
        assert result.stderr.count("\n") == 1

    def test_an_unknown_rule(self, repository: Path) -> None:
        """A misspelt rule in --select would otherwise pass for "no findings"."""
        assert run(str(repository), "--select", "ensemble-cycel").exit_code == 2


class TestChoice:
    @pytest.mark.parametrize(
        ("arguments", "rules"),
        [
            (["--select", "all-versions-loaded"], ["all-versions-loaded"]),
            (["--select", "ST2"], ["all-versions-loaded"]),
            (["--select", "ST4"], []),
            (["--ignore", "all-versions-loaded"], []),
            (["--ignore", "ST201"], []),
            (["--select", "ST2", "--ignore", "ST201"], []),
        ],
    )
    def test_select_and_ignore(self, bad: Path, arguments: list[str], rules: list[str]) -> None:
        """By name, by code and by the beginning of a code."""
        assert rules_of(run(str(bad), "--format", "json", *arguments)) == rules


class TestInputs:
    @pytest.mark.parametrize("path", ["r", "r/m", "r/m/config.pbtxt", "."])
    def test_a_folder_or_a_file(self, bad: Path, path: str) -> None:
        """A repository, a model, its configuration and a folder above give the same finding."""
        assert "all-versions-loaded" in rules_of(run(path, "--format", "json"))

    def test_paths_are_shown_as_given(self, bad: Path) -> None:
        """Relative stays relative, without a leading dot."""
        for path in ("r", "./r", "r/"):
            (finding,) = json.loads(run(path, "--format", "json").stdout)["findings"]
            assert finding["path"] == "r/m/config.pbtxt"

    def test_one_model_knows_its_neighbours(self, repository: Path) -> None:
        """An ensemble that is checked by itself calls models that are there, and are not reported."""
        write(repository, {"e/config.pbtxt": ENSEMBLE, "e/1/": "", "m/config.pbtxt": ALL_VERSIONS})
        for path in ("r/e", "r/e/config.pbtxt"):
            assert rules_of(run(path, "--format", "json")) == []
        (repository / "e/config.pbtxt").write_text(ENSEMBLE.replace('"m"', '"n"'))
        assert "ensemble-missing-model" in rules_of(run("r/e", "--format", "json"))

    def test_two_repositories_are_one(self, repository: Path) -> None:
        """An ensemble may call a model of another repository of the same server."""
        write(Path("s"), {"e/config.pbtxt": ENSEMBLE, "e/1/": ""})
        assert "ensemble-missing-model" in rules_of(run("s", "--format", "json"))
        assert rules_of(run("s", "r", "--format", "json")) == []

    @pytest.mark.parametrize(
        ("text", "rule"),
        [
            (ALL_VERSIONS, "all-versions-loaded"),
            (
                "import os\n\n\nclass TritonPythonModel:\n    def execute(self, r):\n        os.system(r)\n",
                "py-shell-exec",
            ),
            ("services:\n  t:\n    image: tritonserver:23.10-py3\n    privileged: true\n", "privileged"),
            ("#!/bin/sh\ntritonserver --model-repository=/models --model-control-mode=explicit\n", "no-tls"),
            ("FROM nvcr.io/nvidia/tritonserver:23.10-py3\n", "image-outdated"),
        ],
    )
    def test_standard_input(self, repository: Path, text: str, rule: str) -> None:
        """What it is follows from what it holds."""
        result = run("-", "--format", "json", stdin=text)
        assert rule in rules_of(result)
        assert {each["path"] for each in json.loads(result.stdout)["findings"]} == {"-"}

    def test_a_policy_file(self, repository: Path) -> None:
        """A wrong safe-triton.toml is found with its line."""
        Path("safe-triton.toml").write_text("schema = 1\n\n[server]\nhttp_prt = 1\n")
        (finding,) = json.loads(run("safe-triton.toml", "--format", "json").stdout)["findings"]
        assert (finding["rule"], finding["line"], finding["level"]) == ("policy-invalid", 4, "error")


class TestSuppressions:
    @pytest.mark.parametrize(
        "comment",
        [
            "version_policy { all { } } # safe-triton: ignore[all-versions-loaded] canary until=2999-01-01",
            "# safe-triton: ignore[ST201] canary\nversion_policy { all { } }",
            "# safe-triton: ignore[unbounded-queue, all-versions-loaded] canary\nversion_policy { all { } }",
        ],
    )
    def test_in_line(self, repository: Path, comment: str) -> None:
        """Behind the place or on the line above it, by name or code."""
        (repository / "m/config.pbtxt").write_text(CONFIG.replace(POLICY, comment))
        result = run(str(repository), "--format", "json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["summary"]["suppressed"] == 1

    @pytest.mark.parametrize(
        "option", [("--ignore", "all-versions-loaded"), ("--ignore", "ST2"), ("--select", "suppression-unused")]
    )
    def test_of_a_rule_that_is_not_chosen(self, repository: Path, option: tuple[str, str]) -> None:
        """What accepts a finding that is left out this time is no less used."""
        comment = "version_policy { all { } } # safe-triton: ignore[all-versions-loaded] canary"
        (repository / "m/config.pbtxt").write_text(CONFIG.replace(POLICY, comment))
        result = run(str(repository), "--format", "json", *option)
        assert json.loads(result.stdout)["findings"] == []
        assert json.loads(result.stdout)["summary"]["suppressed"] == 0

    @pytest.mark.parametrize(
        ("comment", "rule"),
        [
            ("ignore[all-versions-loaded] canary until=2020-01-01", "suppression-expired"),
            ("ignore[all-versions-loaded]", "suppression-without-reason"),
            ("ignore[all-versions-loaded] canary until=soon", "suppression-invalid"),
            ("ignore[all-version] canary", "suppression-invalid"),
            ("ignore canary", "suppression-invalid"),
        ],
    )
    def test_that_do_not_hold(self, repository: Path, comment: str, rule: str) -> None:
        """The finding counts, and what is wrong with the suppression is found as well."""
        text = CONFIG.replace(POLICY, f"version_policy {{ all {{ }} }} # safe-triton: {comment}")
        (repository / "m/config.pbtxt").write_text(text)
        assert {"all-versions-loaded", rule} == set(rules_of(run(str(repository), "--format", "json")))

    def test_in_the_policy(self, bad: Path) -> None:
        """[[audit.suppress]] names rule, path and date; fail_on is taken from there too."""
        Path("p.toml").write_text(
            'schema = 1\n[audit]\nfail_on = "info"\n[[audit.suppress]]\nrule = "all-versions-loaded"\n'
            'path = "m/config.pbtxt"\nreason = "canary"\nexpires = 2999-01-01\n'
        )
        result = run(str(bad), "--policy", "p.toml", "--format", "json")
        assert result.exit_code == 0
        summary = json.loads(result.stdout)["summary"]
        assert (summary["suppressed"], summary["fail_on"]) == (1, "info")

    def test_the_last_day(self, repository: Path) -> None:
        """A suppression counts on its date and no longer after it."""
        text = CONFIG.replace(POLICY, "version_policy { all { } } # safe-triton: ignore[ST201] canary until=2030-06-30")
        (repository / "m/config.pbtxt").write_text(text)
        for day, count in ((dt.date(2030, 6, 30), 0), (dt.date(2030, 7, 1), 2)):
            assert len(check_paths([repository], jobs=1, today=day).findings) == count


class TestBaseline:
    def test_adopt(self, bad: Path) -> None:
        """What was there is accepted, what comes is reported, also after lines have moved."""
        assert run(str(bad), "--write-baseline", "b.json").exit_code == 0
        config = bad / "m/config.pbtxt"
        config.write_text("# one more line\n" + config.read_text())
        result = run(str(bad), "--baseline", "b.json", "--format", "json")
        assert result.exit_code == 0
        assert json.loads(result.stdout)["summary"]["baseline"] == 1
        config.write_text(config.read_text().replace("count: 1", "count: 0"))
        assert rules_of(run(str(bad), "--baseline", "b.json", "--format", "json")) == ["instance-count-invalid"]

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2, "findings": []}', "[" * 100_000])
    def test_no_baseline(self, bad: Path, text: str) -> None:
        """A file that is none is a mistake, not an empty baseline."""
        Path("b.json").write_text(text)
        assert run(str(bad), "--baseline", "b.json").exit_code == 2


class TestFix:
    def test_a_diff_and_nothing_else(self, bad: Path) -> None:
        """Without a terminal and without --yes nothing is changed."""
        result = run(str(bad), "--fix")
        assert "-version_policy { all { } }\n+version_policy { specific { versions: [ 1 ] } }\n" in result.stderr
        assert (bad / "m/config.pbtxt").read_text() == ALL_VERSIONS
        assert result.exit_code == 1

    def test_yes(self, repository: Path) -> None:
        """Modes, version policy and pinned versions are repaired, the rest of the text stays, and the check passes."""
        ensemble = ENSEMBLE.replace("model_version: 1", "model_version: -1  # newest")
        write(repository, {"e/config.pbtxt": ensemble, "e/1/": "", "m/config.pbtxt": CONFIG.replace(POLICY, "")})
        (repository / "m/1/model.py").chmod(0o646)
        result = run(str(repository), "--fix", "--yes", "--format", "json", "--fail-on", "info")
        assert result.exit_code == 0, result.output
        assert (repository / "e/config.pbtxt").read_text() == ENSEMBLE.replace("_version: 1", "_version: 1  # newest")
        assert (repository / "m/config.pbtxt").read_text().endswith(f"{POLICY}\n")
        assert (repository / "m/1/model.py").stat().st_mode & 0o777 == 0o644

    def test_a_version_that_is_left_out(self, repository: Path) -> None:
        """It is added behind the model's name."""
        write(repository, {"e/config.pbtxt": ENSEMBLE.replace("      model_version: 1\n", ""), "e/1/": ""})
        assert run(str(repository), "--fix", "--yes", "--fail-on", "error").exit_code == 0
        assert 'model_name: "m" model_version: 1\n' in (repository / "e/config.pbtxt").read_text()

    def test_nothing_to_repair(self, repository: Path) -> None:
        """Said, and not a failure."""
        assert run(str(repository), "--fix").exit_code == 0


class TestFormats:
    def test_json(self, bad: Path) -> None:
        """The fields that programs depend on."""
        document = json.loads(run(str(bad), "--format", "json").stdout)
        (finding,) = document["findings"]
        assert document["schema"] == 1
        assert {key: finding[key] for key in ("rule", "code", "level", "path", "line", "column")} == {
            "rule": "all-versions-loaded",
            "code": "ST201",
            "level": "warning",
            "path": "r/m/config.pbtxt",
            "line": CONFIG.splitlines().index(POLICY) + 1,
            "column": 1,
        }
        assert finding["message"] and finding["fix"] == POLICY
        assert document["summary"]["failed"] is True

    def test_text(self, bad: Path) -> None:
        """Grouped by file, with the source line and a caret; no colours without a terminal."""
        lines = run(str(bad)).stdout.splitlines()
        assert lines[0] == "r/m/config.pbtxt"
        assert lines[1].split()[:2] == [f"{CONFIG.splitlines().index(POLICY) + 1}:1", "warning"]
        assert "[all-versions-loaded ST201]" in lines[1]
        assert lines[2] == "          | version_policy { all { } }"
        assert lines[3] == "            ^"
        assert lines[4] == f"          fix: {POLICY}"
        assert lines[-1] == "0 error, 1 warning, 0 info; 1 models, 2 files looked at"

    def test_names_cannot_draw_on_the_terminal(self, repository: Path) -> None:
        """Control characters of a file's name are shown as escapes, markup as it is written."""
        write(repository, {"\x1b[31m[red]/config.pbtxt": "max_batch_size: x\n"})
        text = run(str(repository)).stdout
        assert "\x1b" not in text
        assert "\\x1b[31m[red]" in text

    def test_github(self, bad: Path) -> None:
        """One workflow command per finding, with its special characters escaped."""
        line = CONFIG.splitlines().index(POLICY) + 1
        text = run(str(bad), "--format", "github").stdout
        assert text.startswith(f"::warning file=r/m/config.pbtxt,line={line},col=1,title=all-versions-loaded (ST201)::")
        assert "%0AFix: version_policy" in text
        assert text.count("\n") == 1

    def test_dot(self, repository: Path) -> None:
        """The graph of calls."""
        write(repository, {"e/config.pbtxt": ENSEMBLE, "e/1/": ""})
        assert '"0/e" -> "0/m"' in run(str(repository), "--format", "dot").stdout

    def test_html(self, repository: Path) -> None:
        """One page without scripts, with the graph, and with what comes from files escaped."""
        text = ENSEMBLE.replace('"m"', '"<script>alert(1)"')
        write(repository, {"e/config.pbtxt": text, "e/1/": "", "m/config.pbtxt": CONFIG + "# <img src=x>\n}"})
        result = run(str(repository), "--format", "html", "--output", "report.html")
        assert result.exit_code == 1
        page = Path("report.html").read_text()
        assert page.startswith("<!doctype html>")
        assert "<script" not in page and "<img" not in page
        assert "src=" not in page and "@import" not in page and "url(" not in page.replace("url(#tip)", "")
        assert "config-parse-error" in page

    def test_html_picture(self, repository: Path) -> None:
        """The calls are drawn."""
        write(repository, {"e/config.pbtxt": ENSEMBLE, "e/1/": ""})
        assert run(str(repository), "--format", "html").stdout.count("<rect") == 2

    def test_sarif(self, bad: Path) -> None:
        """A run with rules and results that refer to them, by relative URIs, with fingerprints."""
        (bad / "m n").mkdir()
        (bad / "m n" / "config.pbtxt").write_text("name: x")
        log = json.loads(run(str(bad), "--format", "sarif").stdout)
        check_sarif(log)
        (one,) = log["runs"]
        results = {each["ruleId"]: each for each in one["results"]}
        location = results["all-versions-loaded"]["locations"][0]["physicalLocation"]
        assert location["artifactLocation"] == {"uri": "r/m/config.pbtxt"}
        assert results["config-parse-error"]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].startswith(
            "r/m%20n/"
        )
        assert all(len(each["partialFingerprints"]["safeTriton/v1"]) == 32 for each in one["results"])
        assert all(one["tool"]["driver"]["rules"][each["ruleIndex"]]["id"] == each["ruleId"] for each in one["results"])


def check_sarif(log: dict[str, Any]) -> None:
    """Hold a log to the schema that OASIS publishes (errata 01)."""
    jsonschema.Draft4Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(log)


class TestRules:
    def test_list(self) -> None:
        """Every rule with its code, level and text, for programs."""
        result = CliRunner().invoke(app, ["rules", "--format", "json"])
        assert result.exit_code == 0
        assert [row["name"] for row in json.loads(result.stdout)] == list(ALL)

    def test_table(self) -> None:
        """And for people."""
        assert "ensemble-cycle" in CliRunner().invoke(app, ["rules"], env={"COLUMNS": "200"}).stdout

    @pytest.mark.parametrize("word", ["ensemble-cycle", "ST402"])
    def test_explain(self, word: str) -> None:
        """A rule by name or code, with a bad and a good example."""
        text = CliRunner().invoke(app, ["explain", word]).stdout
        assert text.startswith("ensemble-cycle (ST402, error)")
        assert "bad:\n    # e/config.pbtxt" in text

    def test_explain_for_programs(self) -> None:
        """The same as JSON."""
        row = json.loads(CliRunner().invoke(app, ["explain", "ST402", "--format", "json"]).stdout)
        assert row["name"] == "ensemble-cycle"
        assert "e/config.pbtxt" in row["bad"]

    def test_a_misspelt_rule(self) -> None:
        """The nearest ones are named."""
        result = CliRunner().invoke(app, ["explain", "ensemble-cycel"])
        assert result.exit_code == 2
        assert "ensemble-cycle" in result.stderr
