"""The examples of the documents run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from documents import REPOSITORY, run_blocks

URL = "http://127.0.0.1:8080"


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples write files."""
    monkeypatch.chdir(tmp_path)


def test_the_examples_of_the_readme_run(own_service: Any, capsys: pytest.CaptureFixture[str]) -> None:
    names = run_blocks(REPOSITORY / "clients/python/README.md", lambda block: block.replace(URL, own_service.url))
    assert names["decided"].version == 2
    assert names["database"].execute("SELECT * FROM paid").fetchall() == [("ord-1", 42)]
    assert f"GET {own_service.url}/aggregates/Order/ord-1?snapshot=ignore 1 200 None" in capsys.readouterr().out


def test_the_examples_of_the_lesson_run(own_service: Any) -> None:
    names = run_blocks(
        REPOSITORY / "docs/tutorial/writing-a-service.md", lambda block: block.replace(URL, own_service.url)
    )
    balances = names["database"].execute("SELECT * FROM balances ORDER BY id").fetchall()
    assert balances == [("acc-2", 10), ("acc-3", 20)]
