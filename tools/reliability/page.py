"""docs/reliability.json, and the page made of it."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rows import Row


@dataclass(frozen=True)
class Part:
    """What one part has measured, and where."""

    title: str
    rows: tuple[Row, ...]
    seconds: int
    date: str
    commit: str
    processor: str
    cores: int
    versions: str


def machine(repository: Path) -> dict[str, Any]:
    """Where and when this runs, as `Part` keeps it."""
    from steadyspike.bench.machine import cores, device_name

    torch = version("torch").partition("+")[0]
    head = _git(repository, "rev-parse", "--short", "HEAD")
    if head and _git(repository, "status", "--porcelain", "src"):
        head += " and uncommitted changes"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": head or os.environ.get("REVISION", "unknown"),
        "processor": device_name("cpu"),
        "cores": cores(),
        "versions": f"Python {platform.python_version()}, torch {torch}",
    }


def _git(repository: Path, *arguments: str) -> str:
    """What git prints; nothing where there is no repository."""
    return subprocess.run(
        ["git", *arguments], cwd=repository, capture_output=True, text=True
    ).stdout.strip()


def read_parts(repository: Path) -> dict[str, Part]:
    """What earlier runs have measured, by part."""
    path = repository / "docs" / "reliability.json"
    if not path.exists():
        return {}
    return {
        name: Part(**{**part, "rows": tuple(Row(**row) for row in part["rows"])})
        for name, part in json.loads(path.read_text()).items()
    }


def write_page(repository: Path, parts: dict[str, Part]) -> None:
    """docs/reliability.json and docs/reliability.md."""
    from steadyspike.files import write_atomically

    facts = json.dumps({name: asdict(part) for name, part in parts.items()}, indent=2) + "\n"
    write_atomically(repository / "docs" / "reliability.json", facts)
    write_atomically(repository / "docs" / "reliability.md", page(parts))


def page(parts: dict[str, Part]) -> str:
    """The page as Markdown."""
    rows = [row for part in parts.values() for row in part.rows]
    lines = [
        "# Nothing lost, nothing let in",
        "",
        "Written by `make reliability` from what it measured; a sample of each row is in "
        "`make test`. Each command repeats its part.",
        "",
        f"**{sum(row.holds for row in rows)} of {len(rows)} rows hold.**",
    ]
    for part in parts.values():
        lines += [
            "",
            f"## {part.title}",
            "",
            f"{part.date}, commit {part.commit}, {part.processor}, {part.cores} cores, "
            f"{part.versions}; {_minutes(part.seconds)}.",
            "",
            "| | Claim | Held | Measured | Command |",
            "|---|---|---|---|---|",
        ]
        lines += [
            f"| {'✓' if row.holds else '✗'} | {_cell(row.claim)} | {row.held:,} of {row.tried:,} "
            f"| {_cell(row.figures)} | `{_cell(row.command)}` |"
            for row in part.rows
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")  # else it would end the cell, in code too


def _minutes(seconds: int) -> str:
    return f"{seconds // 60} min {seconds % 60} s" if seconds >= 60 else f"{seconds} s"
