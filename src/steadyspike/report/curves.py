"""Figures 2a and 2b and the curves of training: lines, one a method."""

from collections.abc import Callable

from matplotlib.ticker import MaxNLocator

from steadyspike.report import findings
from steadyspike.report.caveats import layers, named
from steadyspike.report.figure import (
    Figure,
    canvas,
    empty_svg,
    legend,
    legend_columns,
    line_style,
    pixels_to_fractions,
)
from steadyspike.report.methods import method_named
from steadyspike.report.paper import architecture_name, dataset_name, paper
from steadyspike.report.sources import Pipeline
from steadyspike.report.svg import drawing_rules, to_svg
from steadyspike.report.tables import Column, Table, Value
from steadyspike.train.history import EpochRow

_ONLINE_AND_BPTT = (("online", "online training", "osr_ots"), ("bptt", "BPTT", "bptt"))


def figure2a(pipeline: Pipeline) -> Figure:
    """Training memory against the number of time steps."""
    name, title = "figure2a", "Figure 2a. Training memory against the number of time steps T"
    points = sorted(pipeline.memory or (), key=lambda p: (p.method == "bptt", p.steps))
    columns = (
        Column("method", "Method"),
        Column("steps", "T", decimals=0),
        Column("megabytes", "Memory, MB", decimals=3),
    )
    rows: list[list[Value]] = [[p.method, p.steps, round(p.bytes / 1e6, 3)] for p in points]
    sentences = findings.memory(pipeline.memory)
    commands = [] if points else [pipeline.memory_command]
    if not points:
        svg = empty_svg(name, title, commands)
    else:
        with drawing_rules():
            drawing = canvas(5.6, 3.9)
            axes = drawing.subplots()
            drawing.subplots_adjust(**pixels_to_fractions(drawing, 58, 12, 30, 40))
            for method, label, style in _ONLINE_AND_BPTT:
                line = [(row[1], row[2]) for row in rows if row[0] == method]
                if line:
                    x, y = zip(*line, strict=True)
                    axes.plot(x, y, label=label, **line_style(method_named(style)))
            axes.set_xticks(sorted({p.steps for p in points}))
            axes.set_ylim(bottom=0)
            axes.set_xlabel("time steps T")
            axes.set_ylabel("memory kept for backward, MB")
            legend(drawing, axes, columns=2)
            svg = to_svg(drawing, name, title, " ".join(sentences))
    return Figure(
        name=name,
        title=title,
        reading=(
            "What automatic differentiation keeps for the backward pass of one batch. A flat line "
            "means that more time steps cost no more memory. " + _paper_memory()
        ),
        findings=sentences,
        svg=svg,
        data=[Table(name, title, columns, rows)],
        commands=commands,
    )


def figure2b(pipeline: Pipeline) -> Figure:
    """The firing rate at each time step."""
    name, title = "figure2b", "Figure 2b. Firing rate at each time step"
    measured = [(run, run.metrics) for run in pipeline.runs if run.metrics]
    columns = (
        Column("method", "Method"),
        Column("experiment", "Experiment", code=True),
        Column("step", "Step", decimals=0),
        Column("firing_rate", "Firing rate, %", decimals=2),
    )
    rows: list[list[Value]] = [
        [run.method.label, run.name, step, round(100 * rate, 2)]
        for run, metrics in measured
        for step, rate in enumerate(metrics.firing_rate.per_step, start=1)
    ]
    sentences = findings.step_rates(pipeline)
    commands = [run.command for run in pipeline.runs if not run.metrics]
    if not measured:
        svg = empty_svg(name, title, commands)
    else:
        with drawing_rules():
            drawing = canvas(5.6, 3.9)
            axes = drawing.subplots()
            columns_of_legend = legend_columns(drawing, [run.label for run, _ in measured], 3)
            top = 14 + 18 * -(-len(measured) // columns_of_legend)
            drawing.set_figheight(max(3.9, (230 + top) / 72))
            drawing.subplots_adjust(**pixels_to_fractions(drawing, 48, 12, top, 40))
            for run, _ in measured:
                line = [(row[2], row[3]) for row in rows if row[1] == run.name]
                x, y = zip(*line, strict=True)
                style = line_style(run.method, run.variant)
                axes.plot(x, y, label=run.label, clip_on=False, **style)
            most = max(len(metrics.firing_rate.per_step) for _, metrics in measured)
            axes.set_xticks(range(1, most + 1))
            axes.margins(x=0.06)
            axes.set_ylim(bottom=0)
            axes.set_xlabel("time step")
            axes.set_ylabel("neurons that spike, %")
            legend(drawing, axes, columns=columns_of_legend)
            svg = to_svg(drawing, name, title, " ".join(sentences))
    return Figure(
        name=name,
        title=title,
        reading=(
            "The share of neurons that spike at each time step, over all spiking layers and test "
            "images. Both parts of the method aim at flat lines: a network whose rate drifts does "
            "not see, at later steps, what its statistics were gathered for. " + _paper_rates()
        ),
        findings=sentences,
        svg=svg,
        data=[Table(name, title, columns, rows)],
        commands=commands,
    )


_PANELS: tuple[tuple[str, Callable[[EpochRow], float], int], ...] = (
    ("training loss", lambda epoch: epoch.train_loss, 4),
    ("test loss", lambda epoch: epoch.test_loss, 4),
    ("training accuracy, %", lambda epoch: epoch.train_accuracy, 2),
    ("test accuracy, %", lambda epoch: epoch.test_accuracy, 2),
)


def training(pipeline: Pipeline) -> Figure:
    """Loss and accuracy after each epoch."""
    name, title = "training", "Loss and accuracy after each epoch"
    trained = [(run, run.history) for run in pipeline.runs if run.history]
    columns = (
        Column("method", "Method"),
        Column("experiment", "Experiment", code=True),
        Column("epoch", "Epoch", decimals=0),
        Column("train_loss", "Training loss", decimals=4),
        Column("test_loss", "Test loss", decimals=4),
        Column("train_accuracy", "Training accuracy, %", decimals=2),
        Column("test_accuracy", "Test accuracy, %", decimals=2),
        Column("silent_layers", "Silent layers", code=True),
        Column("exploding_layers", "Exploding layers", code=True),
    )
    rows: list[list[Value]] = [
        [
            run.method.label,
            run.name,
            epoch.epoch,
            *(round(value(epoch), decimals) for _, value, decimals in _PANELS),
            " ".join(epoch.silent_layers),
            " ".join(epoch.exploding_layers),
        ]
        for run, history in trained
        for epoch in history
    ]
    sentences = [*findings.training(pipeline), *layers(named(pipeline.runs))]
    commands = [run.command for run in pipeline.runs if not run.history]
    if not trained:
        svg = empty_svg(name, title, commands)
    else:
        with drawing_rules():
            drawing = canvas(9.4, 6.6)
            grid = drawing.subplots(2, 2, sharex=True)
            columns_of_legend = legend_columns(drawing, [run.label for run, _ in trained], 6)
            top = 30 + 18 * -(-len(trained) // columns_of_legend)
            drawing.set_figheight(max(6.6, (427 + top) / 72))
            drawing.subplots_adjust(
                **pixels_to_fractions(drawing, 48, 12, top, 40), hspace=0.24, wspace=0.16
            )
            for place, (axes, (heading, _, _)) in enumerate(zip(grid.flat, _PANELS, strict=True)):
                for run, _ in trained:
                    line = [(row[2], row[3 + place]) for row in rows if row[1] == run.name]
                    x, y = zip(*line, strict=True)
                    # A marker on each of 300 epochs would hide the line.
                    every = max(1, len(x) // 8)
                    style = line_style(run.method, run.variant)
                    style |= {"linewidth": 1.6, "markersize": 5}
                    axes.plot(x, y, label=run.label, markevery=every, **style)
                axes.set_title(heading, loc="left")
                axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
            for axes in grid[1]:
                axes.set_xlabel("epoch")
            legend(drawing, grid[0][0], columns=columns_of_legend)
            svg = to_svg(drawing, name, title, " ".join(sentences))
    return Figure(
        name=name,
        title=title,
        reading="Left, the images trained on; right, the test images.",
        findings=sentences,
        svg=svg,
        data=[Table(name, title, columns, rows)],
        commands=commands,
        wide=bool(trained),
    )


def _setting(figure: str) -> str:
    setting = paper()[figure]["setting"]
    return f"{dataset_name(setting['dataset'])}, {architecture_name(setting['architecture'])}"


def _paper_memory() -> str:
    steps, lines = paper()["figure2a"]["steps"], paper()["figure2a"]["megabytes"]
    return (
        f"The paper's plot ({_setting('figure2a')}) reads about {lines['online']['first']} MB at "
        f"T = {steps[0]} and {lines['online']['last']} MB at T = {steps[-1]} online, and about "
        f"{lines['bptt']['first']} and {lines['bptt']['last']} MB with BPTT."
    )


def _paper_rates() -> str:
    rates = paper()["figure2b"]["rates"]
    spans = findings.listed(
        [
            f"{method_named(key).label} {100 * (max(steps) - min(steps)):.0f}"
            for key, steps in rates.items()
        ]
    )
    return (
        f"In the paper's plot ({_setting('figure2b')}) the highest and the lowest step lie, in "
        f"points, this far apart: {spans}."
    )
