"""The page about fuzzing and soak shows what their commands wrote, and nothing else."""

from __future__ import annotations

import json

from scripts.proof_page import PAGE, PART, PARTS, page, read

RESULTS = read()
TEXT = PAGE.read_text(encoding="utf-8")


def test_page_is_current() -> None:
    """``scripts/proof_page.py`` has been run since the results were written."""
    assert page(TEXT, RESULTS) == TEXT


def test_every_part_is_on_the_page() -> None:
    """No table is missing, and none comes twice."""
    assert sorted(part[2] for part in PART.finditer(TEXT)) == sorted(PARTS)


def test_what_is_promised_was_reached() -> None:
    """The results that the page shows have nothing lost, leaked or unhealed, and were as long as they should be."""
    server, gateway, soak = RESULTS["server"], RESULTS["gateway"], RESULTS["soak"]
    assert server["requests"] >= 100_000 and gateway["requests"] >= 20_000 and soak["minutes"] >= 10
    assert gateway["ends"] == []
    for campaign in (server, gateway):
        assert campaign["problems"] == []
        assert campaign["good"].get("wrong", 0) == 0
        assert {model["state"] for model in campaign["models"].values()} == {"ready"}
    assert (soak["lost"], soak["unhealed"], soak["problems"]) == (0, [], [])


def test_nothing_of_a_machine_is_kept() -> None:
    """The results name no folder and no process' file."""
    text = json.dumps(RESULTS)
    assert not any(word in text for word in ("/tmp/", "/home/", "/root/"))
