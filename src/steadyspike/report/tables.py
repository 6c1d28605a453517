"""A table, and its three forms: Markdown to read, CSV and JSON to compute with."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

NOT_RUN = "not run"
NOT_REPORTED = "not reported"
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Mean:
    """The mean over several seeds and its standard deviation; one seed's value has none."""

    value: float
    deviation: float | None = None


Value = str | int | float | Mean


@dataclass(frozen=True)
class Column:
    """`decimals` makes it a column of numbers, written with so many; `code` one of literal names.

    One of `sums` has SHA-256 sums, several apart by spaces; CSV and JSON alone have all digits.
    A text in a column of numbers says why there is no number (NOT_RUN, NOT_REPORTED). In a column
    of `means` a number may be a Mean, whose deviation CSV and JSON have apart, as `<key>_std`; in
    one of `signed` numbers each is shown with its sign.
    """

    key: str
    header: str
    decimals: int | None = None
    code: bool = False
    sums: bool = False
    means: bool = False
    signed: bool = False

    @property
    def numeric(self) -> bool:
        return self.decimals is not None

    @property
    def keys(self) -> list[str]:
        """The names of its columns in CSV and JSON."""
        return [self.key, f"{self.key}_std"] if self.means else [self.key]

    def text(self, value: Value) -> str:
        """The value as it is shown: always the same digits."""
        if isinstance(value, Mean):
            return " ± ".join(filter(None, self.texts(value)))
        if self.sums:
            return " ".join(map(short, str(value).split()))
        if isinstance(value, str) or self.decimals is None:
            return str(value)
        text = fixed(value, self.decimals)
        return signed(text) if self.signed else text

    def texts(self, value: Value) -> list[str]:
        """The value's cells in CSV, one for each of `keys`."""
        if not self.means:
            return [replace(self, signed=False, sums=False).text(value)]
        mean = value if isinstance(value, Mean) else None
        first = self.text(mean.value if mean else value)
        deviation = mean.deviation if mean else None
        return [first, "" if deviation is None else self.text(deviation)]

    def numbers(self, value: Value) -> list[str | int | float | None]:
        """The value's cells in JSON, one for each of `keys`, rounded as shown."""
        if isinstance(value, str) or self.decimals is None:
            assert not isinstance(value, Mean)
            return [value, None] if self.means else [value]
        kind = float if self.decimals else int
        return [kind(text) if text else None for text in self.texts(value)]


@dataclass(frozen=True)
class Table:
    """Rows under columns.

    `notes` are plain sentences, and so are `caveats`, without which a reader would trust the
    numbers too much; `commands` fill in what was not run.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Value]]
    notes: Sequence[str] = ()
    caveats: Sequence[str] = ()
    commands: Sequence[str] = ()

    def __post_init__(self) -> None:
        assert all(len(row) == len(self.columns) for row in self.rows), self.name

    def column(self, key: str) -> list[Value]:
        """The values below one column."""
        place = [column.key for column in self.columns].index(key)
        return [row[place] for row in self.rows]

    def to_csv(self) -> str:
        """Comma-separated values; the header is the columns' keys."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow([key for column in self.columns for key in column.keys])
        for row in self.rows:
            cells = zip(self.columns, row, strict=True)
            writer.writerow([text for column, value in cells for text in column.texts(value)])
        return out.getvalue()

    def to_json(self) -> str:
        """Title, columns, rows as mappings from key to value, notes, caveats and commands."""
        content = {
            "name": self.name,
            "title": self.title,
            "columns": [{"key": c.key, "header": c.header} for c in self.columns],
            "rows": [
                {
                    key: number
                    for c, value in zip(self.columns, row, strict=True)
                    for key, number in zip(c.keys, c.numbers(value), strict=True)
                }
                for row in self.rows
            ],
            "notes": list(self.notes),
            "caveats": list(self.caveats),
            "commands": list(self.commands),
        }
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"

    def to_markdown(self) -> str:
        """A heading, the table as GitHub renders it, notes, caveats, and commands as a block."""
        lines = [f"# {_escape(self.title)}", ""]
        lines.append(_row([_escape(column.header) for column in self.columns]))
        lines.append(_row(["---:" if column.numeric else "---" for column in self.columns]))
        for row in self.rows:
            cells = zip(self.columns, row, strict=True)
            lines.append(_row([_cell(column, value) for column, value in cells]))
        for note in self.notes:
            lines += ["", _escape(note)]
        for caveat in self.caveats:
            lines += ["", f"**Caution:** {_escape(caveat)}"]
        if self.commands:
            lines += ["", "To fill in what was not run:", ""]
            lines += [f"    {command}" for command in self.commands]
        return "\n".join(lines) + "\n"


def fixed(value: float, decimals: int) -> str:
    """The number with so many decimals, and never a negative zero."""
    text = f"{value:.{decimals}f}"
    return text[1:] if float(text) == 0 and text.startswith("-") else text


def short(sum_: str) -> str:
    """As many digits of a SHA-256 sum as tell it from any other."""
    return sum_[:12]


def signed(number: str) -> str:
    """A number's text with its sign, a real minus."""
    if float(number) == 0:
        return f"±{number}"
    return number.replace("-", "−") if number.startswith("-") else f"+{number}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(column: Column, value: Value) -> str:
    text = column.text(value)
    if not text:
        return ""
    if column.numeric and isinstance(value, str):
        return f"*{text}*"
    if column.code and not re.search(r"[`|\\]", text):
        return f"`{text}`"
    return _escape(text)


def _escape(text: str) -> str:
    """Text that Markdown shows as it stands."""
    return re.sub(r"([\\`*_\[\]<>|~&])", r"\\\1", text)
