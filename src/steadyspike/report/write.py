"""Writes a report: every file is computed before the first is written."""

import json
from pathlib import Path

from steadyspike.files import write_atomically
from steadyspike.report import figures, tables
from steadyspike.report.claims import claims, claims_table
from steadyspike.report.comparison import comparison
from steadyspike.report.figures import Figure
from steadyspike.report.membranes import figure3
from steadyspike.report.page import Section, page
from steadyspike.report.results import Results
from steadyspike.report.speed import speed_table
from steadyspike.report.steps import steps_figure
from steadyspike.report.table import Table


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
    sections = report_sections(results)
    contents = {**more, "index.html": page(results, sections)}
    for section in sections:
        for part in section.parts:
            contents.update(part.files())
    out.mkdir(parents=True, exist_ok=True)
    for name, text in sorted(contents.items()):
        write_atomically(out / name, text)
    return [out / name for name in sorted(contents)]


def report_sections(results: Results) -> list[Section]:
    """All tables and figures; those without a row are left out."""
    sections: dict[str, tuple[str, list[Table | Figure | None]]] = {
        "steps": ("After each time step", [steps_figure(results)]),
        "claims": ("The paper's claims here", [claims_table(claims(results))]),
        "accuracy": ("Accuracy", [tables.table1(results), tables.table4(results)]),
        "comparison": ("Seeds", [comparison(results)]),
        "firing": ("Firing rates", [tables.table2(results), figures.figure2b(results)]),
        "memory": ("Training memory", [figures.figure2a(results)]),
        "speed": ("Speed", [speed_table(results)]),
        "membranes": ("Membrane potentials", [figure3(results)]),
        "training": ("Training", [figures.training(results)]),
        "operations": ("Operations", [tables.operations(results)]),
        "appendix": ("Appendix E", [tables.appendix_e(results)]),
        "experiments": ("Experiments", [tables.experiments(results)]),
    }
    return [
        Section(key, title, [part for part in parts if part is not None and _filled(part)])
        for key, (title, parts) in sections.items()
    ]


def _filled(part: Table | Figure) -> bool:
    return isinstance(part, Figure) or bool(part.rows)
