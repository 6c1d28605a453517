"""Figure 3: the membrane potential before the reset, for each layer and time step."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from steadyspike.evaluate.metrics import Bins, Layer, Layers
from steadyspike.report import findings
from steadyspike.report.figure import Figure, canvas, empty_svg, pixels_to_fractions
from steadyspike.report.sources import Pipeline, Run
from steadyspike.report.svg import drawing_rules, to_svg
from steadyspike.report.tables import Column, Table, Value
from steadyspike.report.theme import light

_NAME = "figure3"
_ROW, _TOP, _BOTTOM, _LEFT, _RIGHT = 66, 26, 44, 92, 14  # SVG units


def figure3(pipeline: Pipeline, commands: Sequence[str] | None = None) -> Figure:
    """Histograms of the method's own experiment, the one with OSR and OTS.

    `commands` measure it where that has not been done; the default are the experiment's own.
    """
    candidates = [run for run in pipeline.runs if run.method.key == "osr_ots"]
    title = "Figure 3. Membrane potential before the reset, by layer and time step"
    for run in candidates:
        if run.membranes is not None:
            return _measured(run, run.membranes, title)
    if commands is None:
        commands = [run.command for run in candidates[:1]]
    return Figure(
        name=_NAME,
        title=title,
        reading=_READING,
        findings=[],
        svg=empty_svg(_NAME, title, commands),
        data=[Table(_NAME, title, _COLUMNS, []), Table(f"{_NAME}_moments", title, _MOMENTS, [])],
        commands=commands,
    )


_READING = (
    "Each panel is one layer (row) at one time step (column): how the potentials of all neurons "
    "are spread over the test images. The dashed line marks the threshold θ; the part to its "
    "right, in colour, spikes. Rows that look alike from left to right mean that a layer works at "
    "every step as it did at the first."
)

_COLUMNS = (
    Column("layer", "Layer", code=True),
    Column("step", "Step", decimals=0),
    Column("low", "From", decimals=4),
    Column("high", "To", decimals=4),
    Column("count", "Potentials", decimals=0),
)

_MOMENTS = (
    Column("layer", "Layer", code=True),
    Column("step", "Step", decimals=0),
    Column("mean", "Mean", decimals=4),
    Column("std", "Standard deviation", decimals=4),
    Column("threshold", "Threshold", decimals=4),
    Column("below", "Below the range", decimals=0),
    Column("above", "Above the range", decimals=0),
)


def _measured(run: Run, membranes: Layers, title: str) -> Figure:
    edges = _edges(membranes.bins)
    layers = membranes.layers
    counts: list[list[Value]] = [
        [layer.name, step, low, high, count]
        for layer in layers
        for step, bins in enumerate(layer.counts, start=1)
        for low, high, count in zip(edges[:-1], edges[1:], bins, strict=True)
    ]
    moments: list[list[Value]] = [
        [
            layer.name,
            step + 1,
            layer.mean[step],
            layer.std[step],
            layer.threshold[step],
            layer.below[step],
            layer.above[step],
        ]
        for layer in layers
        for step in range(len(layer.counts))
    ]
    sentences = findings.membranes(membranes)
    return Figure(
        name=_NAME,
        title=f"{title} ({run.label})",
        reading=_READING,
        findings=sentences,
        svg=_draw(membranes, edges, title, " ".join(sentences)),
        data=[
            Table(_NAME, title, _COLUMNS, counts),
            Table(f"{_NAME}_moments", title, _MOMENTS, moments),
        ],
        wide=True,
    )


def _edges(bins: Bins) -> list[float]:
    width = (bins.high - bins.low) / bins.count
    return [round(bins.low + place * width, 4) for place in range(bins.count + 1)]


def _draw(membranes: Layers, edges: list[float], title: str, alt: str) -> str:
    layers, steps = membranes.layers, len(membranes.layers[0].counts)
    with drawing_rules():
        width = max(9.4, (_LEFT + _RIGHT + 90 * steps) / 72)
        drawing = canvas(width, (_TOP + _BOTTOM + _ROW * len(layers)) / 72)
        grid = drawing.subplots(len(layers), steps, sharex=True, squeeze=False)
        margins = pixels_to_fractions(drawing, _LEFT, _RIGHT, _TOP, _BOTTOM)
        drawing.subplots_adjust(**margins, hspace=0.16, wspace=0.07)
        for row, layer in zip(grid, layers, strict=True):
            shares = _shares(layer)
            # One scale a row, so that the steps of a layer can be compared.
            tallest = max(max(step) for step in shares) or 1.0
            for place, axes in enumerate(row):
                threshold = round(layer.threshold[place], 2)
                _panel(axes, edges, shares[place], threshold)
                axes.set_ylim(0, 1.12 * tallest)
                axes.set_xlim(edges[0], edges[-1])
            row[0].set_ylabel(
                layer.name, rotation=0, ha="right", va="center", color=light("ink"), labelpad=8
            )
        for place, axes in enumerate(grid[0], start=1):
            axes.set_title(f"step {place}", pad=6)
        for axes in grid[-1]:
            axes.tick_params(axis="x", length=3)
        drawing.supxlabel("membrane potential u", y=0.012, size=10, color=light("muted"))
        return to_svg(drawing, _NAME, title, alt)


def _shares(layer: Layer) -> list[list[float]]:
    """The share of each bin in percent, of all potentials of its step."""
    shares = []
    for counts, below, above in zip(layer.counts, layer.below, layer.above, strict=True):
        total = sum(counts) + below + above
        shares.append([round(100 * count / max(total, 1), 3) for count in counts])
    return shares


def _panel(axes: Axes, edges: list[float], shares: list[float], threshold: float) -> None:
    silent, spiking = _split(edges, shares, threshold)
    for (corners, heights), ink in ((silent, "wash"), (spiking, "crimson")):
        if heights:
            axes.stairs(heights, corners, fill=True, color=light(ink), linewidth=0)
    if edges[0] <= threshold <= edges[-1]:
        axes.axvline(threshold, color=light("ink"), linewidth=0.9, linestyle=(0, (3, 2)))
    axes.text(
        0.985,
        0.9,
        f"θ {threshold:.2f}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        size=8.5,
        color=light("muted"),
    )
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)


def _split(
    edges: list[float], heights: list[float], at: float
) -> tuple[tuple[list[float], list[float]], tuple[list[float], list[float]]]:
    """The histogram below `at` and the one above it, each as its corners and heights."""
    at = min(max(at, edges[0]), edges[-1])
    below = [edge for edge in edges if edge < at]
    above = [edge for edge in edges if edge > at]
    cut = max(len(below) - 1, 0)  # the bin that `at` lies in
    if math.isclose(at, edges[0]):
        return ([], []), (edges, heights)
    left = ([*below, at], heights[: cut + 1])
    right = ([at, *above], heights[len(heights) - len(above) :]) if above else ([], [])
    return left, right
