"""The paper's own results as lines of text: place, state, and the command that measures each."""

from pathlib import Path

from steadyspike.report.paper import Cell, own_cells
from steadyspike.report.results import Results, fewer_epochs
from steadyspike.report.table import MARK

HEADER = ("TABLE", "ROW", "COLUMN", "STATE", "COMMAND")


def list_cells(pipelines: Path) -> list[str]:
    """A line for each cell, in aligned columns, below a header.

    The state is `run`, `not run`, or `outdated` if params.yaml has changed since. What was trained
    for fewer epochs than the paper is marked, and a last line says how many. Raises UserError as
    `write_paper_report` does.
    """
    results = Results.of_all(pipelines)
    rows = [HEADER, *(_row(results, cell) for cell in own_cells())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    fewer = {cell.run: found for cell in own_cells() if (found := _fewer_epochs(results, cell))}
    if fewer:
        listed = ", ".join(f"{name} {epochs}" for name, epochs in fewer.items())
        lines.append(f"{MARK} trained for fewer epochs than the paper: {listed}")
    return lines


def _fewer_epochs(results: Results, cell: Cell) -> str:
    """Of a cell that was measured, if training decides it; else empty."""
    run = results.find(cell)
    trained = cell.metric != "memory" and results.done(cell)
    return fewer_epochs(run, cell) if run and trained and not run.outdated else ""


def _row(results: Results, cell: Cell) -> tuple[str, ...]:
    state = "not run"
    if results.done(cell):
        run = results.find(cell)
        stale = run is not None and run.outdated and cell.metric != "memory"
        state = "outdated" if stale else "run"
        if _fewer_epochs(results, cell):
            state += MARK
    return cell.number, cell.row, cell.column, state, cell.command
