"""What a check of a GPU found, as JSON and as Markdown: one row for each thing measured."""

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from steadyspike.commit import describe
from steadyspike.errors import UserError
from steadyspike.files import write_atomically

REPOSITORY = Path(__file__).parents[2]
PARAMS = REPOSITORY / "pipelines" / "cifar10" / "params.yaml"
COMMIT_VARIABLE = "STEADYSPIKE_COMMIT"
LINE = 170  # characters


@dataclass(frozen=True)
class Row:
    """One thing that was measured; a later row of the same name replaces it.

    Attributes:
        result: in one line.
        holds: whether what must hold does; None if the row is a figure alone.
        target: what the figure was to reach, with "reached" or "missed"; empty if nothing.
        data: every number behind it.
        table: for the page: a header and rows of text.
        configuration: for the page: the whole experiment.
        ended: False for a row of what is still going on, which a later one replaces.
    """

    name: str
    result: str
    holds: bool | None = None
    target: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    table: list[list[str]] = field(default_factory=list)
    configuration: dict[str, Any] = field(default_factory=dict)
    ended: bool = True


@dataclass
class Part:
    """One part of the check; ``state`` is `done`, or why it ended early."""

    began: str
    state: str = "running"
    seconds: float = 0.0
    rows: list[Row] = field(default_factory=list)
    log: str = ""  # the end of what it printed, if it failed

    @property
    def sound(self) -> bool:
        return self.state == "done" and all(row.holds is not False for row in self.rows)

    def add(self, row: Row) -> None:
        names = [each.name for each in self.rows]
        if row.name in names:
            self.rows[names.index(row.name)] = row
        else:
            self.rows.append(row)


@dataclass
class Record:
    """The parts that were run on one machine with one state of the source."""

    date: str
    device: str
    commit: str
    parts: dict[str, Part] = field(default_factory=dict)

    def save(self, path: Path, titles: dict[str, str]) -> None:
        """Write the JSON file ``path`` and the page beside it."""
        write_atomically(path, json.dumps(asdict(self), indent=1) + "\n")
        write_atomically(path.with_suffix(".md"), page(self, titles))


def read_record(path: Path) -> Record:
    """What `Record.save` wrote; UserError for anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        parts = {
            name: Part(**{**part, "rows": [Row(**row) for row in part["rows"]]})
            for name, part in content.pop("parts").items()
        }
        return Record(**content, parts=parts)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: expected a file of `make gpu-check`: {error}") from None


def commit() -> str:
    """The commit of the source: STEADYSPIKE_COMMIT, else what git says, with "-dirty" if files
    differ, else `unknown`."""
    if named := os.environ.get(COMMIT_VARIABLE):
        return named
    return describe(REPOSITORY, digits=7) or "unknown"


def query_gpu(*fields: str) -> dict[str, str]:
    """What nvidia-smi says of the GPU that torch uses, by field; UserError if there is none."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    query = f"--query-gpu={','.join(fields)}"
    command = ["nvidia-smi", query, "--format=csv,noheader", f"--id={first}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        raise UserError("nvidia-smi finds no GPU here; `--rehearse` tries all on a CPU") from None
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return dict(zip(fields, values, strict=True))


def page(record: Record, titles: dict[str, str]) -> str:
    """The Markdown page."""
    lines = [f"# {record.device}", f"Commit {record.commit}, {record.date}, by `make gpu-check`."]
    for name, part in record.parts.items():
        lines.append(f"## {titles[name]}")
        if part.state != "done":
            lines.append(f"**{part.state}**")
        if part.rows:
            marks = {None: "", True: "holds", False: "fails"}
            rows = [[r.name, r.result, "; ".join(filter(None, (marks[r.holds], r.target)))]
                    for r in part.rows]  # fmt: skip
            lines.append(_table([["", "Result", "Target"], *rows]))
        for row in part.rows:
            if row.table or row.configuration:
                lines.append(f"### {row.name}")
            if row.table:
                lines.append(_table(row.table))
            if row.configuration:
                lines.append(f"```json\n{json.dumps(row.configuration, indent=1)}\n```")
        lines.append(f"{part.began}, {part.seconds:.0f} s.")
    return "\n\n".join(lines) + "\n"


def _table(rows: list[list[str]]) -> str:
    from steadyspike.plotting import escape_markdown, markdown_table

    header, *body = [[escape_markdown(cell) for cell in row] for row in rows]
    numbers = "right" if header[0] else "left"
    return str(markdown_table(header, body, ["left"] + [numbers] * (len(header) - 1)))


def text_line(name: str, row: Row) -> str:
    """A row in one line of at most `LINE` characters."""
    mark = {None: "    ", True: "ok  ", False: "FAIL"}[row.holds]
    line = " ".join(filter(None, (f"{name:11} {mark} {row.name}: {row.result}", row.target)))
    return line if len(line) <= LINE else line[: LINE - 1] + "…"
