"""Tables 4 and 2: what was measured, and the paper's numbers in columns marked as the paper's."""

from collections.abc import Callable, Sequence

from steadyspike.report.caveats import caveats, named
from steadyspike.report.findings import listed
from steadyspike.report.methods import NORMALIZATIONS
from steadyspike.report.paper import (
    Reported,
    ablation_accuracy,
    architecture_name,
    dataset_name,
    gross_firing_rate,
)
from steadyspike.report.sources import Pipeline, Run
from steadyspike.report.tables import NOT_REPORTED, NOT_RUN, Column, Table, Value

_METHOD = Column("method", "Method")
_EXPERIMENT = Column("experiment", "Experiment", code=True)
_NETWORK = Column("network", "Network")
_STEPS = Column("steps", "T", decimals=0)
_PAPER = (Column("paper", "Paper, %", decimals=2), Column("paper_setting", "Paper's setting"))


def table4(pipeline: Pipeline) -> Table:
    """The ablation: the accuracy of each normalization, with and without OTS."""
    extra, cells_of = _what_differs(pipeline)
    columns = (
        _METHOD,
        *extra,
        _EXPERIMENT,
        Column("normalization", "Normalization"),
        Column("ots", "OTS"),
        Column("weight_decay", "Weight decay", decimals=5),
        Column("accuracy_last", "Accuracy, last epoch, %", decimals=2),
        Column("accuracy_best", "Accuracy, best epoch, %", decimals=2),
        Column("gross_firing_rate", "Gross firing rate, %", decimals=2),
        *_PAPER,
    )
    rows: list[list[Value]] = []
    reported = []
    for run in pipeline.runs:
        model, metrics = run.settings.model, run.metrics
        paper = ablation_accuracy(
            run.method.key,
            run.settings.dataset.name,
            model.name,
            run.settings.training.weight_decay,
        )
        reported.append(paper)
        rows.append(
            [
                run.method.label,
                *cells_of(run),
                run.name,
                NORMALIZATIONS[model.norm],
                "yes" if model.stabilize_threshold else "no",
                run.settings.training.weight_decay,
                metrics.accuracy.last if metrics else NOT_RUN,
                metrics.accuracy.best if metrics else NOT_RUN,
                100 * metrics.firing_rate.gross if metrics else NOT_RUN,
                *_paper_cells(paper),
            ]
        )
    return Table(
        name="table4",
        title="Table 4. Accuracy of each normalization, with and without the threshold stabilizer",
        columns=columns,
        rows=rows,
        notes=[
            "Accuracy is top-1 on the test images. The last epoch's is the headline; the best "
            "epoch's is the highest test accuracy of any epoch, which is what the paper reports.",
            _whose(pipeline.runs, reported),
        ],
        caveats=caveats(named(pipeline.runs)),
        commands=_commands(pipeline),
    )


def table2(pipeline: Pipeline) -> Table:
    """Gross firing rates."""
    extra, cells_of = _what_differs(pipeline)
    columns = (
        _METHOD,
        *extra,
        _EXPERIMENT,
        Column("gross_firing_rate", "Gross firing rate, %", decimals=2),
        *_PAPER,
    )
    rows: list[list[Value]] = []
    reported = []
    for run in pipeline.runs:
        paper = gross_firing_rate(run.method.key)
        reported.append(paper)
        rate = 100 * run.metrics.firing_rate.gross if run.metrics else NOT_RUN
        rows.append([run.method.label, *cells_of(run), run.name, rate, *_paper_cells(paper)])
    return Table(
        name="table2",
        title="Table 2. Gross firing rates",
        columns=columns,
        rows=rows,
        notes=[
            "The gross firing rate is the share of neurons that spike, over all spiking layers, "
            "time steps and test images.",
            _whose(pipeline.runs, reported),
        ],
        caveats=caveats(named(pipeline.runs)),
        commands=_commands(pipeline),
    )


def _what_differs(pipeline: Pipeline) -> tuple[list[Column], Callable[[Run], list[Value]]]:
    """Columns for the network and for T, where these differ, and a run's cells below them."""
    several = {key: len(pipeline.settings(key)) > 1 for key in ("model.name", "evaluation.steps")}
    columns = dict(zip(several, (_NETWORK, _STEPS), strict=True))

    def cells_of(run: Run) -> list[Value]:
        cells: tuple[Value, Value] = (
            architecture_name(run.settings.model.name),
            run.settings.evaluation.steps,
        )
        return [cell for cell, shown in zip(cells, several.values(), strict=True) if shown]

    return [columns[key] for key, shown in several.items() if shown], cells_of


def _paper_cells(reported: Reported | None) -> tuple[Value, Value]:
    return (reported.value, reported.setting) if reported else (NOT_REPORTED, "")


def _whose(runs: Sequence[Run], reported: Sequence[Reported | None]) -> str:
    """Say of the paper's columns whether they hold for the setting that was run here."""
    known = [(run, entry) for run, entry in zip(runs, reported, strict=True) if entry]
    sources = listed(list(dict.fromkeys(entry.source for _, entry in known)))
    if not known:
        return "The paper reports none of these methods."
    if all(entry.setting == _setting(run) for run, entry in known):
        return f"The columns marked Paper hold what the paper reports ({sources})."
    return (
        f"The columns marked Paper hold what the paper reports ({sources}) on another data set or "
        "network, where they name it: compare the order and the differences then, not the values."
    )


def _setting(run: Run) -> str:
    dataset, model = run.settings.dataset.name, run.settings.model.name
    return f"{dataset_name(dataset)}, {architecture_name(model)}"


def _commands(pipeline: Pipeline) -> list[str]:
    return [run.command for run in pipeline.runs if run.metrics is None]
