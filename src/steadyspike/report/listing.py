"""The paper's own cells as lines of text: where each stands, its state, and its command."""

from collections.abc import Sequence
from pathlib import Path

from steadyspike.report.cells import Cell, cells
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.tables import NOT_RUN

HEADER = ("TABLE", "ROW", "COLUMN", "STATE", "COMMAND")


def list_cells(pipelines: Path) -> list[str]:
    """A line for each cell, in aligned columns two spaces apart, below a header.

    What was run with other parameters than params.yaml has now is outdated.

    Errors as of `write_paper_report`.
    """
    work = Reproduction(pipelines)
    rows = [HEADER, *(_row(work, cell) for cell in cells())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [_line(row, widths) for row in rows]


def _row(work: Reproduction, cell: Cell) -> tuple[str, ...]:
    done = "outdated" if work.outdated(cell) else "run"
    state = done if work.done(cell) else NOT_RUN
    return cell.table, cell.row, cell.column, state, cell.command


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
