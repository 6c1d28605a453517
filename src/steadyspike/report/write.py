"""Writes a report: every file is computed before the first is written."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from steadyspike.files import write_atomically
from steadyspike.report import figures, tables
from steadyspike.report.claims import claims_table
from steadyspike.report.comparison import comparison
from steadyspike.report.figures import Figure
from steadyspike.report.membranes import figure3
from steadyspike.report.page import Section, page
from steadyspike.report.results import Results
from steadyspike.report.speed import speed_table
from steadyspike.report.steps import steps_figure
from steadyspike.report.table import Table

Tables = Sequence[Callable[[Results], Table | None]]
Figures = Sequence[Callable[[Results], Figure | None]]

#: The page's sections by their anchors: title, tables, and figures below them.
SECTIONS: dict[str, tuple[str, Tables, Figures]] = {
    "steps": ("After each time step", (), (steps_figure,)),
    "claims": ("The paper's claims here", (claims_table,), ()),
    "accuracy": ("Accuracy", (tables.table1, tables.table4, tables.published), ()),
    "comparison": ("Seeds", (comparison,), ()),
    "firing": ("Firing rates", (tables.table2,), (figures.figure2b,)),
    "memory": ("Training memory", (), (figures.figure2a,)),
    "speed": ("Speed", (speed_table,), ()),
    "membranes": ("Membrane potentials", (), (figure3,)),
    "training": ("Training", (), (figures.training,)),
    "operations": ("Operations", (tables.operations,), ()),
    "appendix": ("Appendix E", (tables.appendix_e,), ()),
    "experiments": ("Experiments", (tables.experiments,), ()),
}


def write_report(pipeline: Path, out: Path) -> list[Path]:
    """Write the tables, figures, digests and page of one pipeline.

    Args:
        pipeline: the folder that holds `params.yaml` and `runs/`.
        out: the folder to write into; made if it is missing.

    Returns:
        The files written, sorted. The same inputs give the same bytes on any machine.

    Raises:
        UserError: an input is malformed, or a run was trained with other parameters than
            params.yaml has now; then nothing is written.
    """
    results = Results.of_pipeline(pipeline)
    digests = {
        run.name: run.digests.model_dump(exclude={"weights_sha256", "dataset"})
        for run in results.only.runs
        if run.digests
    }
    return _write(results, out, {"digests.json": json.dumps(digests, indent=2) + "\n"})


def write_paper_report(pipelines: Path, out: Path) -> list[Path]:
    """Write the paper's tables, figures and a page of what all pipelines have measured.

    Args:
        pipelines: the folder that holds the pipelines' folders.
        out: as in `write_report`, and so are result and errors.
    """
    return _write(Results.of_all(pipelines), out, {})


def _write(results: Results, out: Path, more: dict[str, str]) -> list[Path]:
    results.check_current()
    sections = _sections(results)
    contents = {**more, "index.html": page(results, sections)}
    for section in sections:
        for part in section.parts:
            contents.update(part.files())
    out.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(contents.items()):
        write_atomically(out / name, text)
    return [out / name for name in sorted(contents)]


def report_tables(results: Results) -> list[Table]:
    """All tables that have a row."""
    return [table for _, makers, _ in SECTIONS.values() for table in _tables(results, makers)]


def _sections(results: Results) -> list[Section]:
    """All figures, and all tables that have a row."""
    return [
        Section(
            key,
            title,
            [
                *_tables(results, table_makers),
                *filter(None, (make(results) for make in figure_makers)),
            ],
        )
        for key, (title, table_makers, figure_makers) in SECTIONS.items()
    ]


def _tables(results: Results, makers: Tables) -> list[Table]:
    return [table for make in makers if (table := make(results)) and table.rows]
