"""Runs the Python examples of a document."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[3]


def python_blocks(document: Path) -> list[tuple[int, str]]:
    """Returns the code blocks of a document, with the line at which each begins."""
    text = document.read_text("utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in found]


def run_blocks(document: Path, change: Callable[[str], str]) -> dict[str, Any]:
    """Runs the blocks one after the other, with common names. `change` adapts each to the test."""
    names: dict[str, Any] = {"__name__": "example"}
    for line, block in python_blocks(document):
        # The line numbers of a traceback are those of the document.
        code = compile("\n" * line + change(block), str(document), "exec")
        exec(code, names)
    return names
