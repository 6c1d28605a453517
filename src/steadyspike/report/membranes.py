"""Figure 3: the membrane potential before the reset, for each layer and time step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from steadyspike.evaluate.metrics import Bins, Layer, Layers
from steadyspike.plotting import colour, figure, save_svg
from steadyspike.report.figures import Figure, empty_svg
from steadyspike.report.layer_names import plain_name
from steadyspike.report.results import Results, Row, difference_notes
from steadyspike.report.table import Column, Table, Value

_NAME = "figure3"
_TITLE = "Figure 3. Membrane potential before the reset, by layer and time step"
_ROW, _TOP, _BOTTOM, _RIGHT, _BETWEEN = 66, 46, 44, 14, 30  # SVG units, 72 an inch

_CAPTION = (
    "Each panel is one layer (row) at one time step (column): the potentials of all neurons over "
    "the test images. The dashed line is the threshold θ; the coloured part to its right spikes. A "
    "row has one scale, the share of the neurons in each bin."
)

_COUNTS = (
    Column("experiment", "Experiment", code=True),
    Column("layer", "Layer"),
    Column("step", "Step", 0),
    Column("low", "From", 4),
    Column("high", "To", 4),
    Column("count", "Potentials", 0),
)

_MOMENTS = (
    Column("experiment", "Experiment", code=True),
    Column("layer", "Layer"),
    Column("step", "Step", 0),
    Column("mean", "Mean", 4),
    Column("std", "Standard deviation", 4),
    Column("threshold", "Threshold", 4),
    Column("below", "Below the range", 0),
    Column("above", "Above the range", 0),
)


@dataclass(frozen=True)
class _Measured:
    """The layers of one experiment, by plain names."""

    experiment: str
    label: str
    layers: Layers

    @classmethod
    def of(cls, row: Row, results: Results) -> "_Measured | None":
        if row.run is None or row.run.layers is None:
            return None
        settings = row.run.settings.model
        layers = [
            layer.model_copy(update={"name": plain_name(layer.name, settings)})
            for layer in row.run.layers.layers
        ]
        label = row.method if results.of_paper else row.run.label
        return cls(row.name, label, row.run.layers.model_copy(update={"layers": layers}))

    @property
    def shape(self) -> tuple[list[str], int, Bins]:
        """Layers, steps and bins: histograms that have these in common can stand side by side."""
        layers = self.layers.layers
        return [layer.name for layer in layers], len(layers[0].counts), self.layers.bins


def figure3(results: Results) -> Figure:
    """Histograms of an experiment with OSR and OTS, and beside it of one without OTS."""
    rows = results.rows(_NAME) or [
        row for row in results.rows("table4") if row.run and row.run.method.key == "osr_ots"
    ]
    found = next((each for row in rows if (each := _Measured.of(row, results))), None)
    if found is None:
        commands = [row.command for row in rows[:1]]
        svg = empty_svg(_NAME, _TITLE, commands)
        shown, title = [], _TITLE
    else:
        shown = [*_without_ots(results, found), found]
        title = f"{_TITLE} ({' beside '.join(each.label for each in shown)})"
        svg, commands = _draw(shown), []
    data = [
        Table(_NAME, _TITLE, _COUNTS, [row for each in shown for row in _count_rows(each)]),
        Table(
            f"{_NAME}_moments",
            _TITLE,
            _MOMENTS,
            [row for each in shown for row in _moment_rows(each)],
        ),
    ]
    notes = difference_notes(rows[:1] if results.of_paper else [])
    return Figure(_NAME, title, _CAPTION, svg, data, notes, commands, wide=bool(shown))


def _without_ots(results: Results, found: _Measured) -> list[_Measured]:
    """An experiment without OTS whose histograms compare: vanilla BN, or else the first."""
    rows = [
        row
        for row in results.measured()
        if row.run is not None and not row.run.settings.model.stabilize_threshold
    ]
    rows.sort(key=lambda row: row.run is None or row.run.method.key != "per_step")
    others = [each for row in rows if (each := _Measured.of(row, results))]
    return [each for each in others if each.shape == found.shape][:1]


def _count_rows(measured: _Measured) -> list[list[Value]]:
    edges = _edges(measured.layers.bins)
    return [
        [measured.experiment, layer.name, step, low, high, count]
        for layer in measured.layers.layers
        for step, bins in enumerate(layer.counts, start=1)
        for low, high, count in zip(edges[:-1], edges[1:], bins, strict=True)
    ]


def _moment_rows(measured: _Measured) -> list[list[Value]]:
    return [
        [measured.experiment, layer.name, step, *values]
        for layer in measured.layers.layers
        for step, values in enumerate(
            zip(layer.mean, layer.std, layer.threshold, layer.below, layer.above, strict=True),
            start=1,
        )
    ]


def _edges(bins: Bins) -> list[float]:
    width = (bins.high - bins.low) / bins.count
    return [round(bins.low + place * width, 4) for place in range(bins.count + 1)]


def _draw(shown: Sequence[_Measured]) -> str:
    names, steps, bins = shown[0].shape
    edges = _edges(bins)
    left = 44 + 5.6 * max(map(len, names))
    columns = steps * len(shown)
    width = max(9.4, (left + _RIGHT + _BETWEEN + 84 * columns) / 72)
    height = (_TOP + _BOTTOM + _ROW * len(names)) / 72
    block = (width * 72 - left - _RIGHT - _BETWEEN * (len(shown) - 1)) / len(shown)
    # A constrained layout of hundreds of panels would take minutes; these all have one size.
    with figure(width, height, layout=None) as drawing:
        for place, measured in enumerate(shown):
            start = left + place * (block + _BETWEEN)
            grid = drawing.add_gridspec(
                len(names),
                steps,
                left=start / width / 72,
                right=(start + block) / width / 72,
                top=1 - _TOP / height / 72,
                bottom=_BOTTOM / height / 72,
                hspace=0.16,
                wspace=0.07,
            ).subplots(sharex=True, squeeze=False)
            _draw_block(grid, measured.layers.layers, edges, first=place == 0)
            drawing.text(
                start / width / 72,
                1 - 6 / height / 72,
                measured.label,
                va="top",
                size=11,
                weight="bold",
            )
        drawing.supxlabel("membrane potential u", y=0.012, size=10, color=colour("muted"))
        return save_svg(drawing, _NAME, _TITLE, "One histogram for each layer and time step")


def _draw_block(grid: Any, layers: Sequence[Layer], edges: list[float], first: bool) -> None:
    """The panels of one experiment; the first of a figure names the layers."""
    for row, layer in zip(grid, layers, strict=True):
        shares = _shares(layer)
        # One scale a row, so that the steps of a layer can be compared.
        tallest = max(max(step) for step in shares) or 1.0
        for place, axes in enumerate(row):
            _panel(axes, edges, shares[place], round(layer.threshold[place], 2))
            axes.set_ylim(0, 1.12 * tallest)
            axes.set_xlim(edges[0], edges[-1])
        row[0].set_yticks([tallest], [f"{tallest:.0f} %"])
        row[0].tick_params(axis="y", labelsize=7.5, pad=2)
        if first:
            row[0].set_ylabel(
                layer.name, rotation=0, ha="right", va="center", labelpad=4, color=colour("ink")
            )
    for place, axes in enumerate(grid[0], start=1):
        axes.set_title(f"step {place}", pad=6, loc="center")
    for axes in grid[-1]:
        axes.tick_params(axis="x", length=3)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, prune="both"))


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
        0.05,
        0.97,
        f"θ {threshold:.2f}",
        transform=axes.transAxes,
        ha="left",
        va="top",
        size=8,
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
