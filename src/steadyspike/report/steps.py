"""Accuracy after each time step, at inference and by the function that training computes."""

import math
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, MultipleLocator

from steadyspike.evaluate.metrics import AfterSteps
from steadyspike.plotting import colour, figure, line_style, save_svg
from steadyspike.report.figures import Figure, empty_svg
from steadyspike.report.methods import Method
from steadyspike.report.results import Results, Row
from steadyspike.report.statistics import mean_of
from steadyspike.report.table import Column, Table, Value, shown

_NAME = "steps"
_TITLE = "Accuracy of each time step's own output"
_CAPTION = (
    "A panel for each method. Solid: the network as it is used. Dashed, hollow: the same weights, "
    "if norms normalize the test images as they normalized the training images. Where the two "
    "differ (shaded), training optimized another function than the one that is used."
)
_COLUMNS = (
    Column("experiment", "Experiment", code=True),
    Column("seed", "Seed", code=True),
    Column("step", "Step", 0),
    Column("statistics", "Statistics"),
    Column("step_accuracy", "Accuracy of the step, %", 2),
    Column("votes_accuracy", "Accuracy of the votes so far, %", 2),
)
_PANELS = 4  # a row, at most
_DASHES = (3, 1.5)


def steps_figure(results: Results) -> Figure | None:
    """The figure and its data; None for the whole paper's report if nothing has been measured."""
    rows = results.measured()
    if not rows:
        if results.of_paper:
            return None
        missing = [run.command for run in results.only.runs]
        svg = empty_svg(_NAME, _TITLE, missing)
        return Figure(
            _NAME, _TITLE, _CAPTION, svg, [Table(_NAME, _TITLE, _COLUMNS, [])], (), missing
        )
    data = [line for row in rows for line in _data(row)]
    seeds = sorted({len(row.by_seed) for row in rows})
    caption = _CAPTION
    if seeds[-1] > 1:
        caption += f" Means over {' to '.join(map(str, seeds))} seeds; bars are 95 % intervals."
    svg = _draw([(_label(row, results), row) for row in rows])
    return Figure(_NAME, _TITLE, caption, svg, [Table(_NAME, _TITLE, _COLUMNS, data)], wide=True)


def _data(row: Row) -> list[list[Value]]:
    """The rows of `_COLUMNS` of every seed."""
    return [
        [row.name, seed, step, statistics, *accuracies]
        for seed, measured in row.by_seed.items()
        for statistics, found in measured.after_steps
        for step, accuracies in enumerate(
            zip(found.step_accuracy, found.votes_accuracy, strict=True), start=1
        )
    ]


def _label(row: Row, results: Results) -> str:
    assert row.run is not None
    return row.name if results.of_paper else row.run.label


def _draw(panels: Sequence[tuple[str, Row]]) -> str:
    lines = math.ceil(len(panels) / _PANELS)
    columns = math.ceil(len(panels) / lines)
    with figure(9.4, 0.6 + 2.4 * lines) as drawing:
        grid = drawing.subplots(lines, columns, sharey=True, squeeze=False)
        for axes, (label, row) in zip(grid.flat, panels, strict=False):
            assert row.run is not None
            seeds = [measured.after_steps for measured in row.by_seed.values()]
            _panel(axes, label, row.run.method, seeds)
        for place, axes in enumerate(grid.flat):
            if place >= len(panels):
                axes.remove()
            elif place + columns >= len(panels):
                axes.set_xlabel("time step")
        for axes in grid[:, 0]:
            axes.set_ylabel("accuracy, %")
        grid[0, 0].yaxis.set_major_locator(MultipleLocator(20))
        drawing.legend(
            handles=[
                Line2D([], [], label="at inference", **line_style("ink", "o")),
                Line2D([], [], label="as in training", **line_style("ink", "o", _DASHES, True)),
            ],
            loc="outside upper left",
            ncols=2,
        )
        return save_svg(drawing, _NAME, _TITLE, "A panel for each method")


def _panel(axes: Axes, label: str, method: Method, seeds: Sequence[AfterSteps]) -> None:
    """The mean over seeds of both accuracies of each step, with its interval."""
    means = [
        [mean_of(step) for step in zip(*accuracies, strict=True)]
        for accuracies in (
            [seed.inference.step_accuracy for seed in seeds],
            [seed.batch.step_accuracy for seed in seeds],
        )
    ]
    used, trained = ([mean.value for mean in line] for line in means)
    steps = range(1, len(used) + 1)
    # A marker on each of 20 steps would hide the line.
    common = {"markevery": max(1, len(steps) // 8), "clip_on": False}
    axes.fill_between(steps, used, trained, color=colour("wash"), linewidth=0)
    hollow = line_style(method.colour, method.marker, _DASHES, hollow=True)
    axes.plot(steps, trained, **hollow | common | {"linewidth": 1.4})
    axes.plot(steps, used, **line_style(method.colour, method.marker) | common)
    method_colour = colour(method.colour)
    for line in means if len(seeds) > 1 else ():
        spans, values = [mean.half_width or 0.0 for mean in line], [mean.value for mean in line]
        axes.errorbar(steps, values, spans, fmt="none", ecolor=method_colour, elinewidth=1)
    axes.set_title(textwrap.fill(label, 25), pad=17)
    gap = f"step 1: {used[0]:.1f} %, gap {shown(trained[0] - used[0], 1)}"
    axes.text(0, 1.025, gap, transform=axes.transAxes, size=8.5, color=colour("muted"))
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.margins(x=0.08)
