"""The paper's own results as lines of text: place, state, and the command that measures each."""

from pathlib import Path

from steadyspike.report.paper import Cell, own_cells
from steadyspike.report.results import Results

HEADER = ("TABLE", "ROW", "COLUMN", "STATE", "COMMAND")


def list_cells(pipelines: Path) -> list[str]:
    """A line for each cell, in aligned columns, below a header.

    The state is `run`, `not run`, or `outdated` if params.yaml has changed since. Raises UserError
    as `write_paper_report` does.
    """
    results = Results.of_all(pipelines)
    rows = [HEADER, *(_row(results, cell) for cell in own_cells())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(results: Results, cell: Cell) -> tuple[str, ...]:
    state = "not run"
    if results.done(cell):
        run = results.find(cell)
        stale = run is not None and run.outdated and cell.metric != "memory"
        state = "outdated" if stale else "run"
    return cell.number, cell.row, cell.column, state, cell.command
