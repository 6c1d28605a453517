"""docs/troubleshooting.md quotes messages as the program prints them."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/troubleshooting.md"
MESSAGES = [
    message
    for row in re.findall(r"(?m)^\| (.+?) \| .+ \|$", PAGE.read_text())
    for message in re.findall(r"`([^`]+)`", row)
    if not row.startswith("**")
]


def strings(source: str) -> list[str]:
    """Every string of a Python source, with \\0 for each value that is put into it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else "\0" for p in node.values)
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
    return found


@cache
def source() -> str:
    package = (path.read_text() for path in (ROOT / "src/steadyspike").rglob("*.py"))
    scripts = (path.read_text() for path in (ROOT / "tools").glob("*.sh"))
    return "\n".join([*(text for each in package for text in strings(each)), *scripts])


def test_the_page_has_messages() -> None:
    assert len(MESSAGES) > 50


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_occurs_in_the_source(message: str) -> None:
    for part in message.split("..."):
        text = part.strip(" ;:,.()")
        assert text in source(), text
