"""docs/reliability.json, which holds the measurements, and the page written from it."""

import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
FACTS, PAGE = (REPOSITORY / "docs" / f"reliability.{kind}" for kind in ("json", "md"))


@dataclass(frozen=True)
class Row:
    """One claim, how often it was tried and how often it held."""

    claim: str  # a sentence without a full stop
    held: int
    tried: int
    figures: str = ""  # what else was measured, with units: "slowest stop 0.4 s"

    @property
    def holds(self) -> bool:
        return self.tried > 0 and self.held == self.tried


@dataclass(frozen=True)
class Part:
    """The rows of one part, and when, where and with which code they were measured."""

    title: str
    rows: tuple[Row, ...]
    seconds: int
    date: str
    commit: str
    processor: str
    cores: int
    versions: str
    note: str = ""  # what a reader of an older measurement must know; a new one has none


def surroundings() -> dict[str, Any]:
    """The date, commit, processor and versions, as `Part` records them."""
    from steadyspike.pins import cpu_name

    commit = _git("rev-parse", "--short", "HEAD")
    if commit and _git("status", "--porcelain", "src"):
        commit += " and uncommitted changes"
    torch = version("torch").partition("+")[0]
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit or os.environ.get("REVISION", "unknown"),
        "processor": cpu_name(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": f"Python {platform.python_version()}, torch {torch}",
    }


def _git(*arguments: str) -> str:
    """The output of a git command; empty outside a git checkout."""
    command = ["git", *arguments]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()


def read_parts() -> dict[str, Part]:
    """The parts measured so far, by name."""
    if not FACTS.exists():
        return {}
    return {
        name: Part(**{**part, "rows": tuple(Row(**row) for row in part["rows"])})
        for name, part in json.loads(FACTS.read_text()).items()
    }


def write_parts(parts: dict[str, Part]) -> None:
    """Write the measurements and the page, its parts in the order of ``parts``."""
    facts = {name: asdict(part) for name, part in parts.items()}
    FACTS.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    PAGE.write_text(page(parts))


def page(parts: dict[str, Part]) -> str:
    """The page in Markdown."""
    rows = [row for part in parts.values() for row in part.rows]
    lines = [
        "# Reliability",
        "",
        "Interrupted, resumed and moved runs must give the same bytes, and broken files must be "
        "refused. `make reliability` measures this and writes this page; `make reliability "
        "PARTS=kills` measures one part. `.ci/run` tries a sample of the first three. Each part "
        "states when and with which commit it was measured.",
        "",
        f"**{sum(row.holds for row in rows)} of {len(rows)} claims held.**",
    ]
    for name, part in parts.items():
        minutes, seconds = divmod(part.seconds, 60)
        lines += [
            "",
            f"## {part.title}",
            "",
            f"`PARTS={name}`. {part.date}, commit {part.commit}, {part.processor}, {part.cores} "
            f"cores, {part.versions}; {minutes} min {seconds} s.",
            "",
            *([part.note, ""] if part.note else []),
            "| | Claim | Held | Measured |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {'✓' if row.holds else '✗'} | {row.claim} | {row.held:,} of {row.tried:,} "
            f"| {row.figures} |"
            for row in part.rows
        ]
    return "\n".join(lines) + "\n"
