"""Writes the report of a pipeline: every file is computed before the first is written."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from steadyspike.files import write_atomically
from steadyspike.report import paper_figures, paper_tables
from steadyspike.report.comparison import table2, table4
from steadyspike.report.curves import figure2a, figure2b, training
from steadyspike.report.figure import Figure
from steadyspike.report.histograms import figure3
from steadyspike.report.mixing import refuse_mixed, refuse_mixed_paper
from steadyspike.report.page import page
from steadyspike.report.paper_page import paper_page
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.sources import Pipeline, read_pipeline
from steadyspike.report.tables import Table


def write_report(pipeline: Path, out: Path) -> list[Path]:
    """Write tables, figures, digests and page of the pipeline in this folder, into `out`.

    Args:
        pipeline: the folder that holds `params.yaml` and `runs/`.
        out: the folder to write into; made if it is not there.

    Returns the files written, sorted. The same inputs give the same bytes on any machine. Raises
    UserError, before anything is written, for an input that is not as described in
    evaluate/metrics.py and for measurements that may not stand in one table (mixing.py).
    """
    measured = read_pipeline(pipeline)
    refuse_mixed(measured.runs)
    memory = [figure2a(measured)] if measured.compares_memory else []
    contents = report_files(
        measured,
        [table4(measured), table2(measured)],
        [*memory, figure2b(measured), figure3(measured), training(measured)],
    )
    return write_files(out, contents)


def write_paper_report(pipelines: Path, out: Path) -> list[Path]:
    """Write the paper's tables, figures and a page of what all pipelines have measured, into `out`.

    Args:
        pipelines: the folder that holds the folders of cells.yaml's pipelines.
        out: as in `write_report`, and so are result and errors.
    """
    work = Reproduction(pipelines)
    refuse_mixed_paper(work)
    memory, rates = paper_tables.figure2a(work), paper_tables.figure2b(work)
    tables = [
        paper_tables.table1(work),
        paper_tables.table2(work),
        paper_tables.table4(work),
        paper_tables.appendix_e(work),
        memory,
        rates,
    ]
    figures = [
        paper_figures.figure2a(work, memory),
        paper_figures.figure2b(work, rates),
        paper_figures.figure3(work),
    ]
    contents = {"index.html": paper_page(work, tables, figures), **data_files(tables, figures)}
    return write_files(out, dict(sorted(contents.items())))


def write_files(out: Path, contents: Mapping[str, str]) -> list[Path]:
    """Write texts by name into `out`, in the order of their names."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        write_atomically(out / name, text)
    return [out / name for name in contents]


def report_files(
    pipeline: Pipeline, tables: Sequence[Table], figures: Sequence[Figure]
) -> Mapping[str, str]:
    """The text of each file of a report, by name and in the order of the names."""
    contents = {
        "index.html": page(pipeline, tables, figures),
        "digests.json": _digests(pipeline),
        **data_files(tables, figures),
    }
    return dict(sorted(contents.items()))


def data_files(tables: Sequence[Table], figures: Sequence[Figure]) -> dict[str, str]:
    """Tables in their three forms, figures, and the figures' data."""
    contents = {}
    for table in tables:
        contents[f"{table.name}.md"] = table.to_markdown()
        contents[f"{table.name}.csv"] = table.to_csv()
        contents[f"{table.name}.json"] = table.to_json()
    for figure in figures:
        contents[f"{figure.name}.svg"] = figure.svg
        for data in figure.data:
            contents[f"{data.name}.csv"] = data.to_csv()
    return contents


def _digests(pipeline: Pipeline) -> str:
    """The digests of every experiment that has them, by experiment."""
    joined = {run.name: run.digests.model_dump() for run in pipeline.runs if run.digests}
    return json.dumps(joined, indent=2, ensure_ascii=False) + "\n"
