"""Figure 3: the membrane potential before the reset, for each layer and time step."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from steadyspike.evaluate.metrics import Bins, Layer, Layers
from steadyspike.plotting import colour, figure, save_svg
from steadyspike.report.figures import Figure, empty_svg
from steadyspike.report.results import Results, difference_notes
from steadyspike.report.table import Column, Table, Value

_NAME = "figure3"
_TITLE = "Figure 3. Membrane potential before the reset, by layer and time step"
_ROW, _TOP, _BOTTOM, _LEFT, _RIGHT = 66, 26, 44, 64, 14  # SVG units, 72 an inch

_CAPTION = (
    "Each panel is one layer (row) at one time step (column): the potentials of all neurons over "
    "the test images. The dashed line is the threshold θ; the coloured part to its right spikes."
)

_COUNTS = (
    Column("layer", "Layer", code=True),
    Column("step", "Step", 0),
    Column("low", "From", 4),
    Column("high", "To", 4),
    Column("count", "Potentials", 0),
)

_MOMENTS = (
    Column("layer", "Layer", code=True),
    Column("step", "Step", 0),
    Column("mean", "Mean", 4),
    Column("std", "Standard deviation", 4),
    Column("threshold", "Threshold", 4),
    Column("below", "Below the range", 0),
    Column("above", "Above the range", 0),
)


def figure3(results: Results) -> Figure:
    """Histograms of the first experiment with OSR and OTS that has been measured."""
    rows = results.rows(_NAME) or [
        row for row in results.rows("table4") if row.run and row.run.method.key == "osr_ots"
    ]
    for row in rows:
        if row.run is not None and row.run.layers is not None:
            counts, moments = _data(row.run.layers)
            title = f"{_TITLE} ({row.run.label})"
            svg, commands = _draw(row.run.layers), []
            break
    else:
        counts, moments, title = [], [], _TITLE
        commands = [row.command for row in rows[:1]]
        svg = empty_svg(_NAME, _TITLE, commands)
    data = [
        Table(_NAME, _TITLE, _COUNTS, counts),
        Table(f"{_NAME}_moments", _TITLE, _MOMENTS, moments),
    ]
    notes = difference_notes(rows[:1] if results.of_paper else [])
    return Figure(_NAME, title, _CAPTION, svg, data, notes, commands, wide=bool(counts))


def _data(layers: Layers) -> tuple[list[list[Value]], list[list[Value]]]:
    """The rows of `_COUNTS` and of `_MOMENTS`."""
    edges = _edges(layers.bins)
    counts: list[list[Value]] = [
        [layer.name, step, low, high, count]
        for layer in layers.layers
        for step, bins in enumerate(layer.counts, start=1)
        for low, high, count in zip(edges[:-1], edges[1:], bins, strict=True)
    ]
    moments: list[list[Value]] = [
        [layer.name, step, *values]
        for layer in layers.layers
        for step, values in enumerate(
            zip(layer.mean, layer.std, layer.threshold, layer.below, layer.above, strict=True),
            start=1,
        )
    ]
    return counts, moments


def _edges(bins: Bins) -> list[float]:
    width = (bins.high - bins.low) / bins.count
    return [round(bins.low + place * width, 4) for place in range(bins.count + 1)]


def _draw(measured: Layers) -> str:
    layers, steps = measured.layers, len(measured.layers[0].counts)
    edges = _edges(measured.bins)
    width = max(9.4, (_LEFT + _RIGHT + 90 * steps) / 72)
    height = (_TOP + _BOTTOM + _ROW * len(layers)) / 72
    # A constrained layout of hundreds of panels would take minutes; these all have one size.
    with figure(width, height, layout=None) as drawing:
        grid = drawing.subplots(len(layers), steps, sharex=True, squeeze=False)
        drawing.subplots_adjust(
            left=_LEFT / width / 72,
            right=1 - _RIGHT / width / 72,
            top=1 - _TOP / height / 72,
            bottom=_BOTTOM / height / 72,
            hspace=0.16,
            wspace=0.07,
        )
        for number, (row, layer) in enumerate(zip(grid, layers, strict=True), start=1):
            shares = _shares(layer)
            # One scale a row, so that the steps of a layer can be compared.
            tallest = max(max(step) for step in shares) or 1.0
            for place, axes in enumerate(row):
                _panel(axes, edges, shares[place], round(layer.threshold[place], 2))
                axes.set_ylim(0, 1.12 * tallest)
                axes.set_xlim(edges[0], edges[-1])
            row[0].set_ylabel(
                f"layer {number}", rotation=0, ha="right", va="center", color=colour("ink")
            )
        for place, axes in enumerate(grid[0], start=1):
            axes.set_title(f"step {place}", pad=6, loc="center")
        for axes in grid[-1]:
            axes.tick_params(axis="x", length=3)
        drawing.supxlabel("membrane potential u", y=0.012, size=10, color=colour("muted"))
        return save_svg(drawing, _NAME, _TITLE, "One histogram for each layer and time step")


def _shares(layer: Layer) -> list[list[float]]:
    """The share of each bin in percent, of all potentials of its step."""
    shares = []
    for counts, below, above in zip(layer.counts, layer.below, layer.above, strict=True):
        total = sum(counts) + below + above
        shares.append([round(100 * count / max(total, 1), 3) for count in counts])
    return shares


def _panel(axes: Axes, edges: list[float], shares: list[float], threshold: float) -> None:
    for (corners, heights), name in zip(
        split(edges, shares, threshold), ("wash", "crimson"), strict=True
    ):
        if heights:
            axes.stairs(heights, corners, fill=True, color=colour(name), linewidth=0)
    if edges[0] <= threshold <= edges[-1]:
        axes.axvline(threshold, color=colour("ink"), linewidth=0.9, linestyle=(0, (3, 2)))
    axes.text(
        0.985,
        0.9,
        f"θ {threshold:.2f}",
        transform=axes.transAxes,
        ha="right",
        va="top",
        size=8.5,
        color=colour("muted"),
    )
    axes.grid(False)
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])
    axes.tick_params(axis="x", length=0)


Histogram = tuple[list[float], list[float]]


def split(
    edges: Sequence[float], heights: Sequence[float], at: float
) -> tuple[Histogram, Histogram]:
    """The histogram below `at` and the one above it, each as its corners and heights."""
    below: Histogram = ([], [])
    above: Histogram = ([], [])
    for low, high, height in zip(edges[:-1], edges[1:], heights, strict=True):
        for (corners, found), start, end in (
            (below, low, min(high, at)),
            (above, max(low, at), high),
        ):
            if start < end:
                corners[-1:] = [start, end]
                found.append(height)
    return below, above
