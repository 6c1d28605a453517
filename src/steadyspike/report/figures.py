"""Figures 2a and 2b and the training curves: one line a method, the paper's lines dotted."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

from steadyspike.evaluate.metrics import Memory
from steadyspike.plotting import colour, figure, legend, line_style, save_svg
from steadyspike.report.layer_names import plain_name
from steadyspike.report.methods import METHODS
from steadyspike.report.paper import Cell, cells, paper
from steadyspike.report.results import Results, Row, difference_notes
from steadyspike.report.runs import repro_command
from steadyspike.report.table import NOT_RUN, Column, Table, Value
from steadyspike.train.history import EpochRow

Points = Sequence[tuple[int, float]]


@dataclass(frozen=True)
class Figure:
    """A drawing with its data: `caption` says how to read it, `commands` run what has not been."""

    name: str
    title: str
    caption: str
    svg: str
    data: Sequence[Table]
    notes: Sequence[str] = ()
    commands: Sequence[str] = ()
    wide: bool = False

    def files(self) -> dict[str, str]:
        """The drawing and its data, by file name."""
        data = {f"{table.name}.csv": table.to_csv() for table in self.data}
        return {f"{self.name}.svg": self.svg, **data}


@dataclass(frozen=True)
class _Line:
    """A method's points as measured, and as read off the paper's plot."""

    label: str
    look: Mapping[str, Any]
    ours: Points
    paper: Points


_DOTTED = " Dotted lines with hollow markers are read off the paper's plot."


def figure2a(results: Results) -> Figure | None:
    """Training memory against T; None for a pipeline that has no BPTT to compare with."""
    name, title = "figure2a", "Figure 2a. Training memory against the number of time steps T"
    if not results.of_paper:
        runs = results.only.runs
        if results.only.memory is None and all(run.settings.model.online for run in runs):
            return None
    lines: list[_Line] = []
    rows: list[list[Value]] = []
    missing = []
    comparable = {row.cell: row for row in results.rows(name)}
    for cell in cells(name):
        measured = _by_chunk(results.memory(cell))
        theirs = _papers_memory(cell) if cell in comparable else []
        method = "bptt" if cell.method == "bptt" else "online"
        for place, (chunk, ours) in enumerate((measured or {"": []}).items()):
            label = METHODS[cell.method].label if chunk == "T" else f"online training, K {chunk}"
            look = METHODS[cell.method].look | {"hollow": place % 2 == 1}
            line = _Line(label, look, ours, [] if place else theirs)
            lines.append(line)
            rows += _data_rows([method, chunk], line.ours, line.paper)
        if not measured:
            own = None if results.of_paper else repro_command(results.only.folder, "memory")
            missing.append(own or cell.command)
    columns = [
        Column("method", "Method"),
        Column("chunk", "K"),
        Column("steps", "T", 0),
        Column("megabytes", "Kept for backward, MB", 3),
        Column("paper", "Paper's plot, GPU memory, MB", 0),
    ]
    dotted = any(line.paper for line in lines)
    caption = (
        "What automatic differentiation keeps for the backward pass of one batch, counted tensor "
        "by tensor. A call presents K of the T steps and is followed by its backward pass: online "
        "training keeps the activations of K steps, whatever T is, and BPTT (K = T) of all of them."
    )
    if not results.of_paper:
        trained = dict.fromkeys(
            run.settings.training.chunk for run in results.only.runs if run.settings.model.online
        )
        caption += f" Here online training uses K {', '.join(map(str, trained))}."
    if dotted:
        caption += (
            f"{_DOTTED} They are all of a GPU's memory in use, which no count of tensors gives: "
            "compare slopes, not heights."
        )
    return Figure(
        name,
        title,
        caption,
        _draw(name, title, lines, ("time steps T", "kept for backward, MB"), missing),
        [_data(name, title, columns, rows, dotted)],
        difference_notes(comparable.values()),
        list(dict.fromkeys(missing)),
    )


def _by_chunk(points: Iterable[Memory]) -> Mapping[str, Points]:
    """Megabytes by T for each K, which is T for BPTT."""
    found: dict[str, list[tuple[int, float]]] = {}
    for point in points:
        chunk = str(point.chunk) if point.method == "online" else "T"
        found.setdefault(chunk, []).append((point.steps, point.bytes / 1e6))
    return found


def _papers_memory(cell: Cell) -> Points:
    """The paper's line, which is straight, at each T that it has."""
    steps = paper()[cell.table]["steps"]
    slope = (cell.last - cell.first) / (steps[-1] - steps[0])
    return [(step, cell.first + slope * (step - steps[0])) for step in steps]


def figure2b(results: Results) -> Figure:
    """The firing rate at each time step."""
    name, title = "figure2b", "Figure 2b. Firing rate at each time step"
    rows, lines, missing = [], [], []
    shown = results.rows(name)
    for row in shown:
        metrics = row.run.metrics if row.run else None
        rates = metrics.firing_rate.per_step if metrics else []
        theirs = row.cell.rates if row.cell and (results.of_paper or row.comparable) else ()
        line = _Line(
            row.run.label if row.run and not results.of_paper else row.method,
            _look(row, results),
            [(step, 100 * rate) for step, rate in enumerate(rates, start=1)],
            [(step, 100 * rate) for step, rate in enumerate(theirs, start=1)],
        )
        lines.append(line)
        rows += _data_rows([row.method, row.name], line.ours, line.paper)
        if not rates:
            missing.append(row.command)
    columns = [
        Column("method", "Method"),
        Column("experiment", "Experiment", code=True),
        Column("step", "Step", 0),
        Column("firing_rate", "Firing rate, %", 2),
        Column("paper", "Paper's plot, %", 0),
    ]
    dotted = any(line.paper for line in lines)
    return Figure(
        name,
        title,
        "The share of neurons that spike at each time step, over all spiking layers and test "
        "images. OTS aims at flat lines." + (_DOTTED if dotted else ""),
        _draw(name, title, lines, ("time step", "neurons that spike, %"), missing),
        [_data(name, title, columns, rows, dotted)],
        difference_notes(shown),
        list(dict.fromkeys(missing)),
    )


def _look(row: Row, results: Results) -> Mapping[str, Any]:
    if row.run is not None and not results.of_paper:
        return row.run.look
    return (row.run.method if row.run else METHODS[row.cell.method if row.cell else ""]).look


def _data_rows(start: Sequence[Value], ours: Points, theirs: Points) -> list[list[Value]]:
    """A row for each x, with our value and the paper's."""
    measured, read_off = dict(ours), dict(theirs)
    return [
        [*start, x, measured.get(x, NOT_RUN), read_off.get(x, "")]
        for x in sorted(measured.keys() | read_off.keys())
    ]


def _data(
    name: str,
    title: str,
    columns: Sequence[Column],
    rows: Sequence[Sequence[Value]],
    with_paper: bool,
) -> Table:
    """The figure's data; the last column, the paper's, only where the figure shows it."""
    if with_paper:
        return Table(name, title, columns, rows)
    return Table(name, title, columns[:-1], [row[:-1] for row in rows])


def _draw(
    name: str,
    title: str,
    lines: Sequence[_Line],
    labels: tuple[str, str],
    commands: Sequence[str],
) -> str:
    if not any(line.ours for line in lines):
        return empty_svg(name, title, commands)
    with figure(5.6, 3.9) as drawing:
        axes = drawing.subplots()
        for line in lines:
            if line.paper:
                dotted = {"linestyle": (0, (1, 2)), "linewidth": 1.0, "markersize": 4.5}
                style = line_style(**{**line.look, "hollow": True}) | dotted
                axes.plot(*zip(*line.paper, strict=True), clip_on=False, **style)
            if line.ours:
                style = line_style(**line.look)
                x, y = zip(*line.ours, strict=True)
                axes.plot(x, y, label=line.label, clip_on=False, zorder=3, **style)
        axes.set_xticks(sorted({x for line in lines for x, _ in [*line.ours, *line.paper]}))
        axes.margins(x=0.06)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        legend(drawing, axes, 3)
        return save_svg(drawing, name, title, f"{labels[1]} against {labels[0]}")


def empty_svg(name: str, title: str, commands: Sequence[str]) -> str:
    """A figure of which nothing has been measured: it says so, and how to change that."""
    with figure(5.6, 1.8) as drawing:
        command = commands[0] if commands else ""
        gray: dict[str, Any] = {"ha": "center", "va": "center", "color": colour("muted")}
        drawing.text(0.5, 0.6, NOT_RUN, size=15, **gray)
        drawing.text(0.5, 0.36, command, size=9, **gray)
        return save_svg(drawing, name, title, f"{NOT_RUN}. {command}")


_PANELS: tuple[tuple[str, Callable[[EpochRow], float]], ...] = (
    ("training loss, mean per image (Eq. 5)", lambda epoch: epoch.train_loss),
    ("test loss, mean per image (Eq. 5)", lambda epoch: epoch.test_loss),
    ("training accuracy, %", lambda epoch: epoch.train_accuracy),
    ("test accuracy, %", lambda epoch: epoch.test_accuracy),
)


def training(results: Results) -> Figure | None:
    """Loss and accuracy after each epoch, of a single pipeline."""
    if results.of_paper:
        return None
    name, title = "training", "Loss and accuracy after each epoch"
    runs = results.only.runs
    trained = [(run, list(run.histories.values())) for run in runs if run.history]
    columns = (
        Column("method", "Method"),
        Column("experiment", "Experiment", code=True),
        Column("seed", "Seed", code=True),
        Column("epoch", "Epoch", 0),
        Column("train_loss", "Training loss", 4),
        Column("test_loss", "Test loss", 4),
        Column("train_accuracy", "Training accuracy, %", 2),
        Column("test_accuracy", "Test accuracy, %", 2),
        Column("silent_layers", "Silent layers"),
        Column("exploding_layers", "Exploding layers"),
    )
    rows: list[list[Value]] = [
        [
            run.method.label,
            run.name,
            str(seed),
            epoch.epoch,
            *(value(epoch) for _, value in _PANELS),
            *(
                ", ".join(plain_name(layer, run.settings.model) for layer in layers)
                for layers in (epoch.silent_layers, epoch.exploding_layers)
            ),
        ]
        for run, _ in trained
        for seed, history in run.histories.items()
        for epoch in history
    ]
    missing = [run.command for run in runs if not run.history]
    if not trained:
        svg = empty_svg(name, title, missing)
    else:
        with figure(9.4, 6.8) as drawing:
            grid = drawing.subplots(2, 2, sharex=True)
            for axes, (heading, value) in zip(grid.flat, _PANELS, strict=True):
                for run, histories in trained:
                    style = line_style(**run.look) | {"linewidth": 1.6, "markersize": 5}
                    # A marker on each of 300 epochs would hide the line.
                    epochs = list(zip(*histories, strict=False))
                    style["markevery"] = max(1, len(epochs) // 8)
                    axes.plot(
                        range(1, len(epochs) + 1),
                        [statistics.fmean(map(value, seeds)) for seeds in epochs],
                        label=run.label,
                        **style,
                    )
                axes.set_title(heading)
                axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
            for axes in grid[1]:
                axes.set_xlabel("epoch")
            legend(drawing, grid[0][0], 6)
            svg = save_svg(drawing, name, title, "Four panels, one line for each experiment")
    return Figure(
        name,
        title,
        "Left, the images trained on; right, the test images."
        + (" Means over seeds." if any(len(each) > 1 for _, each in trained) else ""),
        svg,
        [Table(name, title, columns, rows)],
        commands=missing,
        wide=bool(trained),
    )
