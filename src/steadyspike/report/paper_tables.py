"""The paper's tables with a column for what was measured here; no cell is filled from the paper."""

from collections.abc import Mapping, Sequence
from typing import Any

from steadyspike.report.cells import Cell, cells_of
from steadyspike.report.paper import dataset_name, paper
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.tables import NOT_RUN, Column, Table, Value

QUOTED = "quoted"

_DATASET = Column("dataset", "Data set")
_METHOD = Column("method", "Method")
_NETWORK = Column("network", "Network")
_STEPS = Column("steps", "T", decimals=0)
_DECAY = Column("weight_decay", "Weight decay", decimals=5)
_PAPER = Column("paper", "Paper, %", decimals=2)
_LAST = Column("last", "Ours, last epoch, %", decimals=2, means=True)
_BEST = Column("best", "Ours, best epoch, %", decimals=2, means=True)
_OURS = Column("ours", "Ours, %", decimals=2)
_DIFFERENCE = Column("difference", "Ours − paper", decimals=2, signed=True)
_SEEDS = Column("seeds", "Seeds", decimals=0)
_EPOCHS = Column("epochs", "Epochs", decimals=0)
_EXPERIMENT = Column("experiment", "Experiment", code=True)
_SOURCE = Column("source", "Quoted from")
_ACCURACIES = (_PAPER, _LAST, _BEST, _DIFFERENCE, _SEEDS, _EPOCHS, _EXPERIMENT)

_ACCURACY_NOTE = (
    "Accuracy is top-1 on the test split. The paper reports the highest of any epoch, so the "
    "difference is our best epoch's; our headline is the last epoch's. Of several seeds it is the "
    "mean ± standard deviation (n − 1). Epochs are those that were run."
)


def table1(work: Reproduction) -> Table:
    """Comparison with other work, whose rows the paper quotes."""
    own = cells_of("table1")
    rows: list[list[Value]] = []
    for place, row in enumerate(paper()["table1"]["rows"]):
        cell = own.get(place)
        setting = [dataset_name(row["dataset"]), row["architecture"], row["steps"]]
        method = cell.method.label if cell else row["method"]
        rows.append([setting[0], method, *setting[1:], *_accuracies(work, cell, row)])
        rows[-1].append(row.get("quoted", ""))
    return Table(
        name="table1",
        title="Table 1. Accuracy beside that of other work",
        columns=(_DATASET, _METHOD, _NETWORK, _STEPS, *_ACCURACIES, _SOURCE),
        rows=rows,
        notes=[
            _ACCURACY_NOTE,
            "The paper quotes what has another source, and did not run it; neither does this "
            "repository.",
            *work.remarks("table1"),
        ],
        caveats=work.caveats("table1"),
        commands=work.missing("table1"),
    )


def table4(work: Reproduction) -> Table:
    """The ablation."""
    own = cells_of("table4")
    rows: list[list[Value]] = []
    elsewhere = []
    for place, row in enumerate(paper()["table4"]["rows"]):
        cell = own[place]
        setting = [dataset_name(row["dataset"]), row["architecture"], cell.method.label]
        rows.append([*setting, row["weight_decay"], *_accuracies(work, cell, row)])
        if "source" in row:
            elsewhere.append(f"{cell.row}, {row['accuracy']:.2f} %, is from {row['source']}.")
    return Table(
        name="table4",
        title="Table 4. Accuracy of each normalization, with and without the threshold stabilizer",
        columns=(_DATASET, _NETWORK, _METHOD, _DECAY, *_ACCURACIES),
        rows=rows,
        notes=[_ACCURACY_NOTE, *elsewhere, *work.remarks("table4")],
        caveats=work.caveats("table4"),
        commands=work.missing("table4"),
    )


def table2(work: Reproduction) -> Table:
    """Gross firing rates."""
    own = cells_of("table2")
    rows: list[list[Value]] = []
    for key, rate in paper()["table2"]["rates"].items():
        if key not in own:
            rows.append([key, rate, QUOTED, "", "", "", paper()["table2"]["quoted"][key]])
            continue
        cell = own[key]
        ours = work.measured(cell)
        numbers = [ours.against(rate), ours.epochs] if ours.done else ["", ""]
        rows.append([cell.method.label, rate, ours.last, *numbers, cell.run, ""])
    return Table(
        name="table2",
        title=f"Table 2. Gross firing rates on {_setting_of('table2')}",
        columns=(_METHOD, _PAPER, _OURS, _DIFFERENCE, _EPOCHS, _EXPERIMENT, _SOURCE),
        rows=rows,
        notes=[
            "The gross firing rate is the share of neurons that spike, over all spiking layers, "
            "time steps and test images, with the last epoch's weights. What is quoted is of its "
            "authors' own network.",
            *work.remarks("table2"),
        ],
        caveats=work.caveats("table2"),
        commands=work.missing("table2"),
    )


_APPENDIX = {
    "linear": "linear transform instead of OSR",
    "fixed_threshold": "thresholds fixed at inference",
    "batch_of_one": "one image at a time at inference",
}


def appendix_e(work: Reproduction) -> Table:
    """What the choices of the method are worth."""
    rows: list[list[Value]] = []
    for key, cell in cells_of("appendix_e").items():
        setting = [dataset_name(cell.paper["dataset"]), cell.paper["architecture"]]
        what = _APPENDIX[str(key)]
        rows.append([what, *setting, *_accuracies(work, cell, cell.paper)])
    return Table(
        name="appendix_e",
        title="Appendix E. Accuracy with one thing changed",
        columns=(Column("change", "What is changed"), _DATASET, _NETWORK, *_ACCURACIES),
        rows=rows,
        notes=[
            _ACCURACY_NOTE,
            "The two other ways to infer are measured with the first seed's last weights alone, "
            "so the difference is theirs. With live thresholds and whole batches the paper has "
            f"{paper()['appendix_e']['fixed_threshold']['instead_of']:.2f} %{_live(work)}.",
            *work.remarks("appendix_e"),
        ],
        caveats=work.caveats("appendix_e"),
        commands=work.missing("appendix_e"),
    )


def figure2a(work: Reproduction) -> Table:
    """Training memory at each T, what the paper's plot reads and what was counted here."""
    own = cells_of("figure2a")
    columns = [_STEPS]
    lines: list[dict[int, Value]] = []
    for key, cell in own.items():
        name = {"online": "online", "bptt": "BPTT"}[str(key)]
        columns.append(Column(f"{key}_paper", f"{name}, paper's plot, MB", decimals=0))
        columns.append(Column(str(key), f"{name}, ours, MB", decimals=1))
        lines += [dict(paper_memory(cell)), dict(our_memory(work, cell))]
    return Table(
        name="figure2a",
        title=f"Figure 2a. Training memory, {_setting_of('figure2a')}",
        columns=columns,
        rows=[
            [steps, *(line.get(steps, NOT_RUN) for line in lines)]
            for steps in paper()["figure2a"]["steps"]
        ],
        notes=work.remarks("figure2a"),
        commands=work.missing("figure2a"),
    )


def paper_memory(cell: Cell) -> list[tuple[int, float]]:
    """T and MB of a line in the paper's Figure 2a: straight from its first to its last T."""
    steps, ends = paper()["figure2a"]["steps"], cell.paper["megabytes"]
    slope = (ends["last"] - ends["first"]) / (steps[-1] - steps[0])
    return [(step, ends["first"] + slope * (step - steps[0])) for step in steps]


def our_memory(work: Reproduction, cell: Cell) -> list[tuple[int, float]]:
    """T and MB as measured; nothing where it was not."""
    points = work.pipelines[cell.pipeline].memory or ()
    return sorted((p.steps, p.bytes / 1e6) for p in points if p.method == cell.key)


def figure2b(work: Reproduction) -> Table:
    """The firing rate of each step, what the paper's plot reads and what was measured here."""
    steps = paper()["figure2b"]["setting"]["steps"]
    columns = [_METHOD]
    for step in range(1, steps + 1):
        columns.append(Column(f"paper_{step}", f"Step {step}, paper's plot, %", decimals=0))
        columns.append(Column(f"ours_{step}", f"Step {step}, ours, %", decimals=2))
    rows: list[list[Value]] = []
    for cell in cells_of("figure2b").values():
        ours = dict(our_rates(work, cell))
        rows.append([cell.method.label])
        for step, rate in paper_rates(cell):
            rows[-1] += [rate, ours.get(step, NOT_RUN)]
        rows[-1].append(cell.run)
    return Table(
        name="figure2b",
        title=f"Figure 2b. Firing rate at each time step, {_setting_of('figure2b')}",
        columns=[*columns, _EXPERIMENT],
        rows=rows,
        notes=work.remarks("figure2b"),
        caveats=work.caveats("figure2b"),
        commands=work.missing("figure2b"),
    )


def paper_rates(cell: Cell) -> list[tuple[int, float]]:
    """Step and percent of a line in the paper's Figure 2b."""
    return [(step, 100 * rate) for step, rate in enumerate(cell.paper["rates"], start=1)]


def our_rates(work: Reproduction, cell: Cell) -> list[tuple[int, float]]:
    """Step and percent as measured; nothing where it was not."""
    run = work.run(cell)
    rates = run.metrics.firing_rate.per_step if run is not None and run.metrics else []
    return [(step, 100 * rate) for step, rate in enumerate(rates, start=1)]


def _accuracies(work: Reproduction, cell: Cell | None, row: Mapping[str, Any]) -> Sequence[Value]:
    """The cells of `_ACCURACIES`; a row without a cell is quoted."""
    if cell is None:
        return [row["accuracy"], QUOTED, QUOTED, "", "", "", ""]
    ours, there = work.measured(cell), row["accuracy"]
    if not ours.done:
        return [there, NOT_RUN, NOT_RUN, "", "", "", cell.run]
    difference = ours.against(there)
    return [there, ours.last, ours.best, difference, ours.seeds, ours.epochs, cell.run]


def _live(work: Reproduction) -> str:
    run = work.run(cells_of("appendix_e")["fixed_threshold"])
    if run is None or run.metrics is None or run.metrics.inference is None:
        return ""
    return f" and this repository {run.metrics.inference.live:.2f} %"


def _setting_of(place: str) -> str:
    setting = paper()[place]["setting"]
    return f"{dataset_name(setting['dataset'])}, {setting['architecture']}"
