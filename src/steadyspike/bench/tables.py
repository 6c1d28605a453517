"""Tables and sentences of the benchmark's page."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from statistics import median

from steadyspike.bench.frameworks import FRAMEWORKS, PLAIN, SPIKINGJELLY
from steadyspike.bench.records import Bench, Measured, Measurement, Training, Waiting
from steadyspike.plotting import escape_markdown, markdown_table

MEGABYTE = 1e6


def groups(bench: Bench) -> list[list[Measurement]]:
    """The measurements that took turns, by precision; those at further T are left out."""
    steps = bench.measurements[0].setting.steps
    compared = [m for m in bench.measurements if m.setting.steps == steps]
    precisions = dict.fromkeys(m.setting.precision for m in compared)
    return [[m for m in compared if m.setting.precision == each] for each in precisions]


def images_per_second(m: Measurement) -> list[float]:
    """One value per turn."""
    return [m.setting.batch / seconds for seconds in m.seconds]


def fastest(found: Iterable[Measurement]) -> Measurement:
    """The one of the least median time, of measurements that were all timed."""
    return min(found, key=lambda m: median(m.seconds))


def bptt_of_spikingjelly(found: Iterable[Measurement]) -> list[Measurement]:
    """Those of SpikingJelly's steps by BPTT that were timed, in whatever way they ran."""
    return [m for m in found if m.framework.startswith(SPIKINGJELLY.key) and m.seconds]


def label(m: Measurement) -> str:
    """The framework's label, with K if it is ours."""
    framework = FRAMEWORKS[m.framework]
    ours = framework.package is None
    return f"{framework.label}, K {m.setting.chunk}" if ours else framework.label


def title(group: Sequence[Measurement]) -> str:
    setting = group[0].setting
    channels, height, width = setting.image
    return (
        f"VGGSNN{'' if setting.widths is None else ' (tiny)'}, {channels}×{height}×{width}, "
        f"T {setting.steps}, batch {setting.batch}, {setting.precision}"
    )


def comparison(group: Sequence[Measurement], rows: Sequence[Measurement]) -> str:
    """Speed and memory of ``rows``, which are among the measurements that took turns."""
    baseline = next((m for m in group if m.framework == SPIKINGJELLY.key and m.seconds), None)
    baseline = baseline or next((m for m in group if m.framework == PLAIN.key and m.seconds), None)
    slowest = min((min(images_per_second(m)) for m in group if m.seconds), default=0)
    digits = 0 if slowest >= 100 else 1 if slowest >= 10 else 2
    headers = (
        "Framework",
        "Images/s",
        "Range",
        f"× {label(baseline)}" if baseline else "×",
        "Step / its convolutions",
        "Peak memory, MB",
        "Kept for backward, MB",
        "Run as",
    )
    cells = []
    for m in rows:
        if m.failed:
            cells.append([label(m), *[""] * 6, escape_markdown(f"failed: {m.failed}")])
            continue
        speed = images_per_second(m)
        cells.append(
            [
                label(m),
                f"{median(speed):.{digits}f}",
                f"{min(speed):.{digits}f} to {max(speed):.{digits}f}",
                ratio(baseline.seconds, m.seconds) if baseline else "",
                ratio(m.seconds, m.convolution_seconds),
                _megabytes(m.peak_bytes, 0),
                _megabytes(m.kept_bytes, 1),
                m.variant,
            ]
        )
    return _table(headers, cells, left=(0, 7))


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> str:
    """The ratio of the medians, and its range over the turns; empty if one was not measured."""
    if not numerators or not denominators:
        return ""
    by_turn = [a / b for a, b in zip(numerators, denominators, strict=True)]
    whole = median(numerators) / median(denominators)
    spread = f" ({min(by_turn):.2f} to {max(by_turn):.2f})" if min(by_turn) < max(by_turn) else ""
    return f"{whole:.2f}{spread}"


def memory_curves(bench: Bench, field: str) -> dict[str, dict[int, int]]:
    """``peak_bytes`` or ``kept_bytes`` by framework and T, where more than one T is known.

    In the first precision; of ours, at the first K.
    """
    first = bench.measurements[0].setting
    curves: dict[str, dict[int, int]] = {}
    for m in bench.measurements:
        s, value = m.setting, getattr(m, field)
        framework = FRAMEWORKS[m.framework]
        one_k = framework.package is not None or framework.one_step
        if value is None or s.precision != first.precision:
            continue
        if one_k or s.chunk == min(first.chunk, s.steps):
            curves.setdefault(m.framework, {})[s.steps] = value
    return {key: dict(sorted(curve.items())) for key, curve in curves.items() if len(curve) > 1}


def memory_table(curves: dict[str, dict[int, int]]) -> str:
    """Megabytes by framework and T."""
    steps = sorted({t for curve in curves.values() for t in curve})
    rows = [
        [FRAMEWORKS[key].label, *(_megabytes(curve.get(t), 0) for t in steps)]
        for key, curve in curves.items()
    ]
    return _table(["Framework", *(f"T {t}" for t in steps)], rows)


def waiting_sentence(waiting: Waiting) -> str:
    if waiting.share is None:
        return f"`{waiting.dataset}`: failed: {escape_markdown(str(waiting.failed))}"
    return (
        f"Training on `{waiting.dataset}` ({waiting.precision}, batch {waiting.batch}) spends "
        f"{100 * waiting.share:.2f} % of its time waiting for data; a batch takes "
        f"{waiting.seconds:.3f} s."
    )


def training_sentence(training: Training) -> str:
    s = training.setting
    channels, height, width = s.image
    return (
        f"VGGSNN with OSR and OTS, trained on {training.dataset} ({channels}×{height}×{width}), "
        f"T {s.steps}, K {s.chunk}, batch {s.batch}, {s.precision}, on {training.processor}: "
        f"{training.epochs} epochs in {training.minutes:.1f} minutes, test accuracy "
        f"{training.accuracy:.2f} %, {training.date[:10]}."
    )


def notes(bench: Bench) -> list[str]:
    """How each framework differs from ours, what failed outside the tables, a busy machine."""
    shown = [FRAMEWORKS[key] for key in dict.fromkeys(m.framework for m in bench.measurements)]
    lines = [f"{framework.label}: {framework.note}." for framework in shown if framework.note]
    compared = bench.measurements[0].setting.steps
    lines += [
        escape_markdown(f"{label(m)}, T {m.setting.steps}: failed: {m.failed}")
        for m in bench.measurements
        if m.failed and m.setting.steps != compared
    ]
    load, cores = bench.machine.load, bench.machine.cores
    if load is not None and load > cores / 4:
        lines.append(f"The machine was not idle before the run: load {load:.1f} on {cores} cores.")
    return lines


def where(bench: Measured, threads: int) -> str:
    """Hardware, versions, date and commit in one line; ``threads`` are those used on a CPU."""
    machine = bench.machine
    processor = f"{machine.processor}, {threads} of {machine.cores} cores, {machine.instructions}"
    parts = [machine.gpu or processor]
    parts += [f"{name} {version}" for name, version in bench.versions.items()]
    parts.append(f"{datetime.fromisoformat(bench.date):%Y-%m-%d}")
    if bench.commit:
        parts.append(f"commit {bench.commit}")
    return ", ".join(parts)


def _megabytes(count: int | None, digits: int) -> str:
    return "" if count is None else f"{count / MEGABYTE:.{digits}f}"


def _table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[int] = (0,)
) -> str:
    align = ["left" if place in left else "right" for place in range(len(headers))]
    return markdown_table(headers, rows, align)
