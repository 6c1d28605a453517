"""A table, and its forms: Markdown to read, CSV and JSON to compute with."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from steadyspike.plotting import escape_markdown, markdown_table

NOT_RUN = "not run"
NOT_REPORTED = "not reported"
NOT_MEASURED = "not measured"
QUOTED = "quoted"

Value = str | int | float


class Marked(float):
    """A number that a footnote restricts, shown with `MARK`."""


MARK = "†"


def rounded(number: float, decimals: int) -> str:
    """To so many decimals; what rounds to 0 has no sign."""
    text = f"{number:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def shown(number: float, decimals: int) -> str:
    """`rounded`, with a true minus sign, to read."""
    return rounded(number, decimals).replace("-", "−")


@dataclass(frozen=True)
class Column:
    """`decimals` makes it a column of numbers; `code` one of literal names.

    A text in a column of numbers says why there is no number (NOT_RUN, NOT_REPORTED). A number in a
    `signed` column is shown with its sign, and a `Marked` one with `MARK`, except in CSV and JSON.
    """

    key: str
    header: str
    decimals: int | None = None
    code: bool = False
    signed: bool = False

    @property
    def numeric(self) -> bool:
        return self.decimals is not None

    def text(self, value: Value) -> str:
        """The value as shown, always with the same number of digits."""
        if isinstance(value, str) or self.decimals is None:
            return str(value)
        text = shown(value, self.decimals)
        text = f"+{text}" if self.signed and not text.startswith("−") else text
        return f"{text}{MARK}" if isinstance(value, Marked) else text

    def plain(self, value: Value) -> str:
        """The value in CSV, without a mark."""
        if isinstance(value, str) or self.decimals is None:
            return str(value)
        return rounded(value, self.decimals)

    def number(self, value: Value) -> Value:
        """The value in JSON, rounded as shown."""
        if isinstance(value, str) or self.decimals is None:
            return value
        return float(self.plain(value)) if self.decimals else int(self.plain(value))


@dataclass(frozen=True)
class Table:
    """Rows under columns. `notes` are sentences; `commands` run what has not been run.

    On the page the columns `groups` become headings above the rows that share their values.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    groups: Sequence[str] = ()

    def files(self) -> dict[str, str]:
        """Its three forms, by file name."""
        return {
            f"{self.name}.csv": self.to_csv(),
            f"{self.name}.json": self.to_json(),
            f"{self.name}.md": self.to_markdown(),
        }

    def to_csv(self) -> str:
        """Comma-separated values below the columns' keys."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([column.key for column in self.columns])
        for row in self.rows:
            writer.writerow([c.plain(value) for c, value in zip(self.columns, row, strict=True)])
        return out.getvalue()

    def to_json(self) -> str:
        """Name, title, columns, rows as mappings from key to value, notes and commands."""
        content = {
            "name": self.name,
            "title": self.title,
            "columns": [{"key": c.key, "header": c.header} for c in self.columns],
            "rows": [
                {c.key: c.number(value) for c, value in zip(self.columns, row, strict=True)}
                for row in self.rows
            ],
            "notes": list(self.notes),
            "commands": list(self.commands),
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """A heading, the table as GitHub renders it, notes, and commands as a block."""
        body = markdown_table(
            [escape_markdown(column.header) for column in self.columns],
            [
                [_cell(column, value) for column, value in zip(self.columns, row, strict=True)]
                for row in self.rows
            ],
            ["right" if column.numeric else "left" for column in self.columns],
        )
        parts = [f"# {escape_markdown(self.title)}", body, *map(escape_markdown, self.notes)]
        if self.commands:
            parts.append("To run what has not been run:")
            parts.append("\n".join(f"    {command}" for command in self.commands))
        return "\n\n".join(parts) + "\n"


def _cell(column: Column, value: Value) -> str:
    text = column.text(value)
    if column.numeric and isinstance(value, str) and text:
        return f"*{text}*"
    if column.code and text and not re.search(r"[`|\\]", text):
        return f"`{text}`"
    return escape_markdown(text)
