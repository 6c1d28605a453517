"""Figures of a benchmark: speed by framework, memory against T."""

from dataclasses import dataclass
from statistics import median

from steadyspike.bench.frameworks import FRAMEWORKS
from steadyspike.bench.records import Bench
from steadyspike.bench.tables import MEGABYTE, groups, images_per_second, label, memory_curves
from steadyspike.plotting import colour, figure, legend, line_style, save_svg


@dataclass(frozen=True)
class BenchFigure:
    """``name`` is that of its file without suffix."""

    name: str
    title: str
    svg: str


def figures(bench: Bench) -> list[BenchFigure]:
    """Every figure for which there are measurements."""
    drawn = [_speed(bench), _memory(bench)]
    return [each for each in drawn if each is not None]


def _speed(bench: Bench) -> BenchFigure | None:
    """A panel for each precision."""
    panels = [timed for group in groups(bench) if (timed := [m for m in group if m.seconds])]
    if not panels:
        return None
    setting = panels[0][0].setting
    labels = list(dict.fromkeys(label(m) for panel in panels for m in panel))
    name = f"bench-{bench.machine.device}-speed"
    title = f"Training images per second: VGGSNN, T {setting.steps}, batch {setting.batch}"
    with figure(9.4, 0.9 + 0.34 * len(labels)) as drawing:
        grid = drawing.subplots(1, len(panels), sharey=True, squeeze=False)
        for axes, panel in zip(grid[0], panels, strict=True):
            for m in panel:
                speed, place = images_per_second(m), labels.index(label(m))
                middle, ink = median(speed), colour(FRAMEWORKS[m.framework].style[0])
                axes.barh(place, middle, height=0.62, color=ink)
                axes.plot([min(speed), max(speed)], [place] * 2, color=colour("ink"), linewidth=1)
                axes.text(
                    max(speed), place, f"  {middle:.3g}", va="center", size=9, color=colour("muted")
                )
            axes.set_xlim(0, 1.16 * max(max(images_per_second(m)) for m in panel))
            axes.set_ylim(len(labels) - 0.4, -0.6)
            axes.set_yticks(range(len(labels)), labels)
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.set_title(panel[0].setting.precision)
            axes.set_xlabel("images/s")
        svg = save_svg(drawing, name, title)
    return BenchFigure(name, title, svg)


def _memory(bench: Bench) -> BenchFigure | None:
    curves = memory_curves(bench, "peak_bytes")
    if not curves:
        return None
    name = f"bench-{bench.machine.device}-memory"
    title = "Peak memory of a training step against the number of time steps T"
    with figure(5.6, 4.2) as drawing:
        axes = drawing.subplots()
        for key, curve in curves.items():
            peaks = [peak / MEGABYTE for peak in curve.values()]
            framework = FRAMEWORKS[key]
            axes.plot(list(curve), peaks, label=framework.label, **line_style(*framework.style))
        axes.set_xticks(sorted({steps for curve in curves.values() for steps in curve}))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time steps T")
        axes.set_ylabel("peak memory, MB")
        legend(drawing, axes, 2)
        svg = save_svg(drawing, name, title)
    return BenchFigure(name, title, svg)
