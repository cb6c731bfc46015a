"""The dashboard, the alerts and the scrape configuration, as files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml
from typer.testing import CliRunner

from safe_triton.cli.app import app
from safe_triton.deploy.alerts import GROUPS
from safe_triton.deploy.monitoring import DASHBOARD, RULES, SCRAPE, alert_rules, dashboard, monitoring_files
from safe_triton.policyfile import OperatorPolicy, load_policy
from safe_triton.supervision.causes import KINDS
from tests.monitored import expressions, selected

DOCS = Path(__file__).parents[3] / "docs"


class TestExpressions:
    @pytest.mark.parametrize("asked", list(expressions()), ids=lambda asked: asked.place)
    def test_grammar(self, asked: Any) -> None:
        """Prometheus's own grammar takes each; what a legend or a summary shows is a label that is left."""
        promql_parser.parse(asked.text)
        assert selected(asked.text)
        outer = re.search(r"by \(([\w, ]+)\)", asked.text)
        left = set(outer[1].split(", ")) if outer else asked.templates
        assert asked.templates <= left

    def test_causes_are_those_of_the_supervisor(self) -> None:
        """A misspelt cause would never fire."""
        named = {
            word
            for asked in expressions()
            for words in re.findall(r'cause=~?"([\w|]+)"', asked.text)
            for word in words.split("|")
        }
        assert named
        assert named <= KINDS.keys()


class TestDashboard:
    def test_panels_do_not_overlap(self) -> None:
        """Each has its own cells of Grafana's 24 columns, its own number, and a source that the reader chooses."""
        cells: set[tuple[int, int]] = set()
        panels = dashboard()["panels"]
        for panel in panels:
            place = panel["gridPos"]
            assert place["x"] + place["w"] <= 24
            own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
            assert not own & cells
            cells |= own
        assert len({panel["id"] for panel in panels}) == len(panels)
        sources = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())}
        assert sources == {"${datasource}"}

    def test_what_grafana_needs(self) -> None:
        """A stable identity, and the three variables that the expressions use."""
        found = dashboard()
        assert found["uid"] == "safe-triton"
        assert found["schemaVersion"] >= 36
        assert [row["name"] for row in found["templating"]["list"]] == ["datasource", "server", "model"]


class TestAlerts:
    def test_what_somebody_at_night_needs(self) -> None:
        """Each has a summary, a description, a severity and a place in the documentation."""
        page = (DOCS / "reference" / "alerts.md").read_text(encoding="utf-8")
        names = []
        for group in alert_rules()["groups"]:
            for rule in group["rules"]:
                names.append(rule["alert"])
                assert rule["labels"]["severity"] in {"critical", "warning", "info"}
                assert all(rule["annotations"][key] for key in ("summary", "description"))
                assert re.fullmatch(r"\d+[mh]", rule["for"])
                place = rule["annotations"]["runbook_url"]
                assert place == f"docs/reference/alerts.md#{rule['alert'].lower()}"
                assert f"\n### {rule['alert']}\n" in page
        assert len(set(names)) == len(names) == sum(map(len, GROUPS.values()))


class TestFiles:
    def test_the_same_every_time(self) -> None:
        """Written again without a change, they do not differ."""
        assert monitoring_files(OperatorPolicy()) == monitoring_files(OperatorPolicy())

    def test_what_is_scraped(self, tmp_path: Path) -> None:
        """The policy's ports, and no port that is not known beforehand."""
        file = tmp_path / "safe-triton.toml"
        file.write_text("[server]\nmetrics_port = 9002\nhealth_port = 0\n")
        found = yaml.safe_load(monitoring_files(load_policy(file), server="a")[SCRAPE])
        (job,) = found["scrape_configs"]
        assert job["static_configs"] == [{"targets": ["127.0.0.1:9002"], "labels": {"server": "a"}}]

    def test_the_command(self, tmp_path: Path) -> None:
        """Every file is written, and is what its name says."""
        folder = tmp_path / "made" / "here"
        result = CliRunner().invoke(app, ["render", "monitoring", "--output", str(folder), "--runbooks", "https://x/y"])
        assert result.exit_code == 0, result.output
        assert json.loads((folder / DASHBOARD).read_text())["title"] == "safe_triton"
        rules = yaml.safe_load((folder / RULES).read_text())
        assert rules["groups"][0]["rules"][0]["annotations"]["runbook_url"].startswith("https://x/y#")
        assert yaml.safe_load((folder / SCRAPE).read_text())["scrape_configs"]

    def test_a_threshold_of_ones_own(self, tmp_path: Path) -> None:
        """A file that was changed is not replaced without --force."""
        words = ["render", "monitoring", "--output", str(tmp_path)]
        assert CliRunner().invoke(app, words).exit_code == 0
        (tmp_path / RULES).write_text("mine\n")
        assert "was changed since it was written" in CliRunner().invoke(app, words).output
        assert (tmp_path / RULES).read_text() == "mine\n"
        assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0

    @pytest.mark.parametrize("arguments", [["--policy", "/nowhere.toml"], ["--output", "/proc/nowhere"]])
    def test_what_cannot_be(self, tmp_path: Path, arguments: list[str]) -> None:
        """One line, and 2."""
        if "--output" not in arguments:
            arguments = [*arguments, "--output", str(tmp_path)]
        result = CliRunner().invoke(app, ["render", "monitoring", *arguments])
        assert result.exit_code == 2
        assert result.output.startswith("safe-triton: ") and result.output.count("\n") == 1
