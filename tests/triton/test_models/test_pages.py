"""The pages in docs/models: one for each example model, and its client code works as it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from safe_triton.server import TritonServer
from tests.docs.blocks import parse
from tests.triton.conftest import MODEL_REPOSITORY

ROOT = MODEL_REPOSITORY.parent
PAGES = sorted((ROOT / "docs" / "models").glob("*.md"))


def test_one_page_for_each_model() -> None:
    """No model is without a page, and no page without a model."""
    models = {path.name for path in MODEL_REPOSITORY.iterdir() if path.is_dir()}
    assert {page.stem for page in PAGES} == models


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_client_code_runs(page: Path, server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's Python asks a server at Triton's usual ports, and its assertions hold."""
    monkeypatch.chdir(ROOT)
    blocks = [block for block in parse(page.read_text(encoding="utf-8"), page) if block.language == "python"]
    assert blocks
    for block in blocks:
        code = block.text.replace("127.0.0.1:8000", server.http_url).replace("127.0.0.1:8001", server.grpc_url)
        exec(compile("\n" * block.line + code, str(page), "exec", dont_inherit=True), {})
