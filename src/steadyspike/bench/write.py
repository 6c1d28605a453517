"""What a run leaves: JSON, Markdown, figures, the part of a README, lines on the terminal."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from steadyspike.bench.figures import figures
from steadyspike.bench.records import Bench, file_of, read_bench
from steadyspike.bench.tables import (
    comparisons,
    memory_table,
    notes,
    ratio_table,
    trained,
    waiting_table,
    where,
)
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.report.tables import Column, Table

BEGIN, END = "<!-- bench -->", "<!-- /bench -->"
DEVICES = ("cuda", "cpu")


def save(bench: Bench, folder: Path) -> Path:
    """Write the measurements."""
    path = file_of(folder, bench.machine.device)
    write_atomically(path, bench.model_dump_json(indent=1) + "\n")
    return path


def render(folder: Path, readmes: Sequence[Path] = ()) -> list[Path]:
    """Write tables and figures of every device's measurements in the folder.

    Args:
        folder: where the JSON files lie.
        readmes: files whose part between the two markers is replaced.

    Raises:
        UserError: there are no measurements, or a file has no markers; then nothing is written.
    """
    found = [bench for device in DEVICES if (bench := read_bench(file_of(folder, device)))]
    if not found:
        raise UserError(f"{folder}: no bench-*.json: run `steadyspike bench --out {folder}` first")
    changed = {readme: _with_part(readme, _part(found, folder, readme)) for readme in readmes}
    written = []
    for bench in found:
        page = folder / f"bench-{bench.machine.device}.md"
        write_atomically(page, markdown(bench))
        written.append(page)
        for figure in figures(bench):
            path = folder / f"{figure.name}.svg"
            write_atomically(path, figure.svg)
            written.append(path)
    for readme, text in changed.items():
        write_atomically(readme, text)
        written.append(readme)
    return written


def tables_of(bench: Bench) -> list[Table]:
    """All that hold a row."""
    every = [*comparisons(bench), ratio_table(bench), memory_table(bench), waiting_table(bench)]
    return [table for table in every if table.rows]


def markdown(bench: Bench) -> str:
    """The page of one device's run."""
    lines = [f"# Measured on {bench.machine.gpu or bench.machine.processor}", "", where(bench), ""]
    for table in tables_of(bench):
        lines += [table.to_markdown().replace("# ", "## ", 1)]
    lines += ["## Notes", "", *(f"- {note}" for note in notes(bench)), ""]
    if bench.training:
        lines += ["## Training", "", f"{trained(bench.training)}.", ""]
    for figure in figures(bench):
        lines += [f"![{figure.title}]({figure.name}.svg)", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _part(found: Sequence[Bench], folder: Path, readme: Path) -> str:
    """What a README shows: of every device the comparison and its speed."""
    base = os.path.relpath(folder, readme.parent)
    lines: list[str] = []
    for bench in found:
        for table in comparisons(bench):
            body = table.to_markdown().partition("\n\n")[2]
            lines += [f"**{table.title}**", "", body]
        drawn = figures(bench)
        lines += [f"![{figure.title}]({base}/{figure.name}.svg)" for figure in drawn[:1]]
        if bench.training:
            lines += ["", f"{trained(bench.training)}."]
        lines += ["", f"{where(bench)}. [All tables]({base}/bench-{bench.machine.device}.md).", ""]
    return "\n".join(lines).strip("\n")


def _with_part(readme: Path, part: str) -> str:
    try:
        text = readme.read_text()
    except OSError as error:
        raise UserError(f"--readme: {readme}: {error.strerror}") from None
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"--readme: {readme}: expected a line {BEGIN} and below it {END}")
    return f"{before}{BEGIN}\n{part}\n{END}{after}"


def show(bench: Bench) -> None:
    """Print every table: for eyes on a terminal, as Markdown into a pipe."""
    if not sys.stdout.isatty():
        print(markdown(bench).partition("\n![")[0].rstrip("\n"))
        return
    from rich.console import Console

    console = Console(highlight=False)
    for table in tables_of(bench):
        console.print(_rich(table))
    for note in notes(bench):
        console.print(f"- {note}", style="dim", markup=False)
    console.print(where(bench), style="dim", markup=False)


def _rich(table: Table) -> object:
    from rich import box
    from rich.table import Table as RichTable

    shown = RichTable(title=table.title, title_justify="left", box=box.SIMPLE_HEAD)
    for column in table.columns:
        shown.add_column(column.header, justify="right" if column.numeric else "left")
    for row in table.rows:
        shown.add_row(*(_text(column, v) for column, v in zip(table.columns, row, strict=True)))
    return shown


def _text(column: Column, value: object) -> str:
    return column.text(value)  # type: ignore[arg-type]
