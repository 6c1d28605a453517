"""The figures of a run: speed by framework, memory against T, the chunk dial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from steadyspike.bench.contenders import ALL, Contender
from steadyspike.bench.records import Bench, Measurement
from steadyspike.bench.summary import groups, images_per_second, label, memory_points, plain_rows
from steadyspike.bench.tables import MEGABYTE
from steadyspike.report.figure import canvas, legend, legend_columns, pixels_to_fractions
from steadyspike.report.svg import drawing_rules, to_svg
from steadyspike.report.theme import light

_BAR, _TOP, _BOTTOM, _NAMES = 25, 30, 40, 186  # SVG units
_LOOKS = (("crimson", "o", ()), ("blue", "D", (7, 2, 1.5, 2)), ("teal", "^", (2, 1.5)))


@dataclass(frozen=True)
class BenchFigure:
    """A drawing; ``name`` is that of its file and ``alt`` says what it shows."""

    name: str
    title: str
    alt: str
    svg: str


def figures(bench: Bench) -> list[BenchFigure]:
    """All for which there are measurements, of the first network, batch and T."""
    if not groups(bench):
        return []
    shown = [_speed(bench), _memory(bench), _dial(bench)]
    return [figure for figure in shown if figure is not None]


def _first_panels(bench: Bench) -> list[list[Measurement]]:
    """The groups that differ from the first in precision alone."""
    found = groups(bench)
    first = found[0][0].setting
    return [
        group
        for group in found
        if (group[0].setting.model, group[0].setting.batch, group[0].setting.steps)
        == (first.model, first.batch, first.steps)
    ]


def _speed(bench: Bench) -> BenchFigure:
    panels = _first_panels(bench)
    setting = panels[0][0].setting
    name = f"bench-{bench.machine.device}-speed"
    title = f"Training images per second: {setting.model}, T {setting.steps}, batch {setting.batch}"
    names = list(dict.fromkeys(label(m, setting) for group in panels for m in group))
    alt = "; ".join(
        f"{m.setting.precision}, {label(m, setting)}: {images_per_second(m).median:.3g}"
        for group in panels
        for m in group
    )
    with drawing_rules():
        drawing = canvas(9.4, (_TOP + _BOTTOM + _BAR * len(names)) / 72)
        grid = drawing.subplots(1, len(panels), sharey=True, squeeze=False)
        drawing.subplots_adjust(
            **pixels_to_fractions(drawing, _NAMES, 24, _TOP, _BOTTOM), wspace=0.12
        )
        for axes, group in zip(grid[0], panels, strict=True):
            most = max(images_per_second(m).high for m in group)
            for m in group:
                speed, place = images_per_second(m), names.index(label(m, setting))
                ink = light(ALL[m.contender].ink)
                axes.barh(place, speed.median, height=0.62, color=ink)
                axes.plot([speed.low, speed.high], [place] * 2, color=light("ink"), linewidth=1)
                axes.text(
                    speed.high + most / 60,
                    place,
                    f"{speed.median:.3g}",
                    va="center",
                    size=9,
                    color=light("muted"),
                )
            axes.set_xlim(0, most * 1.14)
            axes.set_ylim(len(names) - 0.4, -0.6)
            axes.set_yticks(range(len(names)), names)
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.set_title(group[0].setting.precision, loc="left")
            axes.set_xlabel("images/s")
        svg = to_svg(drawing, name, title, alt)
    return BenchFigure(name, title, alt, svg)


def _memory(bench: Bench) -> BenchFigure | None:
    points = memory_points(bench)
    curves = {key: curve for key, curve in points.items() if len(curve) > 1}
    if not curves:
        return None
    name = f"bench-{bench.machine.device}-memory"
    title = "Peak memory of a training step against the number of time steps T"
    alt = "; ".join(
        f"{ALL[key].label}: "
        + ", ".join(f"{peak / MEGABYTE:.0f} MB at T {steps}" for steps, peak in curve.items())
        for key, curve in curves.items()
    )
    labels = [ALL[key].label for key in curves]
    with drawing_rules():
        drawing = canvas(5.6, 4.2)
        axes = drawing.subplots()
        columns = legend_columns(drawing, labels, 2)
        top = 14 + 18 * -(-len(labels) // columns)
        drawing.set_figheight((250 + top) / 72)
        drawing.subplots_adjust(**pixels_to_fractions(drawing, 58, 12, top, _BOTTOM))
        for key, curve in curves.items():
            heights = [peak / MEGABYTE for peak in curve.values()]
            axes.plot(list(curve), heights, label=ALL[key].label, **_line(ALL[key]))
        axes.set_xticks(sorted({steps for curve in curves.values() for steps in curve}))
        most = max(peak for curve in curves.values() for peak in curve.values())
        axes.set_ylim(0, 1.08 * most / MEGABYTE)
        axes.set_xlabel("time steps T")
        axes.set_ylabel("peak memory, MB")
        legend(drawing, axes, columns)
        svg = to_svg(drawing, name, title, alt)
    return BenchFigure(name, title, alt, svg)


def _dial(bench: Bench) -> BenchFigure | None:
    curves = {
        group[0].setting.precision: plain_rows(group)
        for group in _first_panels(bench)
        if len(plain_rows(group)) > 1
    }
    if not curves:
        return None
    name = f"bench-{bench.machine.device}-chunk"
    title = "The chunk dial: K steps a call"
    panels: Sequence[tuple[str, Callable[[Measurement], float]]] = (
        ("images/s", lambda m: images_per_second(m).median),
        ("peak memory, MB", lambda m: (m.peak_bytes or 0) / MEGABYTE),
    )
    alt = "; ".join(
        f"{precision}, K {m.setting.chunk}: "
        + ", ".join(f"{value(m):.3g} {what}" for what, value in panels)
        for precision, rows in curves.items()
        for m in rows
    )
    with drawing_rules():
        drawing = canvas(9.4, 3.5)
        grid = drawing.subplots(1, 2)
        drawing.subplots_adjust(**pixels_to_fractions(drawing, 58, 12, 32, _BOTTOM), wspace=0.2)
        for axes, (what, value) in zip(grid, panels, strict=True):
            for (precision, rows), look in zip(curves.items(), _LOOKS, strict=False):
                chunks = [m.setting.chunk for m in rows]
                axes.plot(chunks, [value(m) for m in rows], label=precision, **_look(*look))
                axes.set_xticks(chunks)
            axes.set_ylim(0, 1.08 * max(value(m) for rows in curves.values() for m in rows))
            axes.set_xlabel("steps a call, K")
            axes.set_ylabel(what)
        legend(drawing, grid[0], columns=3)
        svg = to_svg(drawing, name, title, alt)
    return BenchFigure(name, title, alt, svg)


def _line(contender: Contender) -> dict[str, Any]:
    return _look(contender.ink, contender.marker, contender.dashes)


def _look(ink: str, marker: str, dashes: tuple[float, ...]) -> dict[str, Any]:
    return {
        "color": light(ink),
        "marker": marker,
        "linestyle": (0, dashes) if dashes else "-",
        "markeredgecolor": light("ground"),
        "markeredgewidth": 0.8,
    }
