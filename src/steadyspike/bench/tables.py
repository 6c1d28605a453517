"""The tables of a run."""

from collections.abc import Sequence
from datetime import datetime

from steadyspike.bench.contenders import ALL
from steadyspike.bench.records import Bench, Measurement, Training
from steadyspike.bench.summary import (
    groups,
    images_per_second,
    label,
    memory_points,
    outside,
    ratios,
    rival,
    speed_up,
)
from steadyspike.report.methods import NORMALIZATIONS
from steadyspike.report.tables import NOT_MEASURED, Column, Table, Value

MEGABYTE = 1e6
_BLANK = ""


def comparison(bench: Bench, group: Sequence[Measurement]) -> Table:
    """Speed and memory of everyone in one setting."""
    setting, against = group[0].setting, rival(group)
    columns = (
        Column("framework", "Framework"),
        Column("images_per_second", "Images/s", decimals=_decimals(group)),
        Column("range", "Range"),
        Column("speed", f"Times {ALL[against.contender].label}" if against else "Times", 2),
        Column("outside", "Outside convolutions, %", 1),
        Column("peak_mb", "Peak memory, MB", 0),
        Column("kept_mb", "Kept for backward, MB", 1),
        Column("variant", "Run as"),
    )
    rows: list[list[Value]] = []
    for measurement in group:
        speed = images_per_second(measurement)
        share = outside(measurement)
        times: Value = speed_up(measurement, against).median if against else NOT_MEASURED
        rows.append(
            [
                label(measurement, setting),
                speed.median,
                speed.text(_decimals(group)),
                times,
                _BLANK if share is None else 100 * share,
                _megabytes(measurement.peak_bytes),
                _megabytes(measurement.kept_bytes),
                measurement.variant,
            ]
        )
    channels, height, width = setting.image
    title = (
        f"{setting.model}, {channels}×{height}×{width}, T {setting.steps}, batch "
        f"{setting.batch}, {setting.precision}"
    )
    return Table(f"bench-{setting.precision}", title, columns, rows)


def comparisons(bench: Bench) -> list[Table]:
    """One of each group that took turns."""
    return [comparison(bench, group) for group in groups(bench)]


def ratio_table(bench: Bench) -> Table:
    """The ratios, each with its range over the turns."""
    columns = (Column("ratio", "Ratio"), Column("value", "Value", 2), Column("range", "Range"))
    rows: list[list[Value]] = [
        [ratio.name, ratio.value, ratio.range.text(2) if ratio.range else _BLANK]
        for ratio in ratios(bench)
    ]
    return Table("bench-ratios", "Ratios of one run, of steadyspike (fused)", columns, rows)


def memory_table(bench: Bench) -> Table:
    """Peak memory by T."""
    points = memory_points(bench)
    steps = sorted({step for curve in points.values() for step in curve})
    columns = [Column("framework", "Framework")]
    columns += [Column(f"T{step}", f"T {step}", 0) for step in steps]
    rows: list[list[Value]] = [
        [ALL[key].label, *(_megabytes(curve.get(step)) for step in steps)]
        for key, curve in points.items()
    ]
    return Table("bench-memory", "Peak memory against T, MB", columns, rows)


def waiting_table(bench: Bench) -> Table:
    """The share of waiting for data."""
    columns = (
        Column("dataset", "Data set", code=True),
        Column("precision", "Precision"),
        Column("batch", "Batch", 0),
        Column("seconds", "Seconds a batch", 3),
        Column("share", "Waiting for data, %", 2),
    )
    rows: list[list[Value]] = [
        [w.dataset, w.precision, w.batch, w.seconds, 100 * w.share] for w in bench.waiting
    ]
    return Table("bench-waiting", "Time between the steps of training", columns, rows)


def notes(bench: Bench) -> list[str]:
    """How each contender differs from the first, and what was not measured."""
    shown = dict.fromkeys(measurement.contender for measurement in bench.measurements)
    told = [f"{ALL[key].label}: {ALL[key].note}." for key in shown if ALL[key].note]
    missing = dict.fromkeys((skip.contender, skip.reason) for skip in bench.skipped)
    told += [f"{ALL[key].label}: {NOT_MEASURED}: {reason}" for key, reason in missing]
    load, cores = bench.machine.load, bench.machine.cores
    if load is not None and load > cores / 4:
        told.append(f"The machine was not idle before the run: load {load:.1f} on {cores} cores.")
    return told + [f"Waiting for data {NOT_MEASURED}: {reason}" for reason in bench.unread]


def trained(training: Training) -> str:
    """A training run of a given length, in words."""
    setting = training.setting
    channels, height, width = setting.image
    return (
        f"{setting.model} with {NORMALIZATIONS[setting.norm]} and OTS "
        f"{'on' if setting.stabilize_threshold else 'off'}, trained on {training.dataset} "
        f"({channels}×{height}×{width}), T {setting.steps}, K {setting.chunk}, batch "
        f"{setting.batch}, {setting.precision}, on {training.on}: {training.epochs} epochs in "
        f"{training.minutes:.1f} minutes ({training.seconds_an_epoch:.1f} s each), test accuracy "
        f"{training.accuracy_last:.2f} %, best {training.accuracy_best:.2f} %, {training.date[:10]}"
    )


def where(bench: Bench) -> str:
    """Hardware, versions and date in one line."""
    machine = bench.machine
    parts = [machine.gpu] if machine.gpu else [machine.processor, _cores(bench)]
    parts += [f"{name} {version}" for name, version in bench.versions.items()]
    parts.append(f"{datetime.fromisoformat(bench.date):%Y-%m-%d}")
    if bench.commit:
        parts.append(f"commit {bench.commit[:7]}" + (" and later changes" * bench.changed))
    return ", ".join(part for part in parts if part)


def _cores(bench: Bench) -> str:
    threads = {m.setting.threads for m in bench.measurements if not m.setting.pinned}
    used = "/".join(str(count) for count in sorted(threads))
    return f"{used} of {bench.machine.cores} cores, {bench.machine.instructions}"


def _megabytes(count: int | None) -> Value:
    return NOT_MEASURED if count is None else count / MEGABYTE


def _decimals(group: Sequence[Measurement]) -> int:
    """Enough digits for the slowest: two of 1.23, one of 12.3, none of 123."""
    slowest = min(m.setting.batch / max(m.seconds) for m in group)
    return 0 if slowest >= 100 else 1 if slowest >= 10 else 2
