"""Medians, ranges and ratios of what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from steadyspike.bench.contenders import ALL, FUSED, PLAIN
from steadyspike.bench.plan import KEPT_BATCH, KEPT_STEPS
from steadyspike.bench.records import Bench, Measurement
from steadyspike.bench.setting import Setting
from steadyspike.report.methods import NORMALIZATIONS

RIVAL = "spikingjelly-bptt"


@dataclass(frozen=True)
class Spread:
    """A median with the least and the greatest of the values it is of."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values))

    def text(self, decimals: int) -> str:
        """The range alone."""
        return f"{self.low:.{decimals}f} to {self.high:.{decimals}f}"


@dataclass(frozen=True)
class Ratio:
    """One number that compares two of a run's measurements."""

    name: str
    value: float
    range: Spread | None = None


def images_per_second(measurement: Measurement) -> Spread:
    """By turn."""
    return Spread.of([measurement.setting.batch / seconds for seconds in measurement.seconds])


def speed_up(measurement: Measurement, other: Measurement) -> Spread:
    """How many times the other's images per second: of medians, and by turn."""
    by_turn = [
        theirs / own for own, theirs in zip(measurement.seconds, other.seconds, strict=False)
    ]
    whole = median(other.seconds) / median(measurement.seconds)
    return Spread(whole, min(by_turn), max(by_turn))


def outside(measurement: Measurement) -> float | None:
    """The share of the step outside its convolutions and matrix products."""
    if not measurement.convolution_seconds:
        return None
    return 1 - median(measurement.convolution_seconds) / median(measurement.seconds)


def label(measurement: Measurement, base: Setting | None = None) -> str:
    """The contender's name, with whatever sets this one of its rows apart from ``base``."""
    setting = measurement.setting
    parts = [ALL[measurement.contender].label]
    if ALL[measurement.contender].ours and not ALL[measurement.contender].whole:
        parts.append(f"K {setting.chunk}")
        if base is not None and setting.norm != base.norm:
            parts.append(NORMALIZATIONS[setting.norm])
        if base is not None and setting.stabilize_threshold != base.stabilize_threshold:
            parts.append("OTS" if setting.stabilize_threshold else "no OTS")
    if setting.pinned:
        parts.append("pinned")
    return ", ".join(parts)


def groups(bench: Bench) -> list[list[Measurement]]:
    """The timed measurements, those that took turns together."""
    found: dict[tuple[object, ...], list[Measurement]] = {}
    for measurement in bench.measurements:
        s = measurement.setting
        if measurement.seconds:
            key = (s.model, s.image, s.widths, s.batch, s.steps, s.precision)
            found.setdefault(key, []).append(measurement)
    return list(found.values())


def plain_rows(group: Sequence[Measurement], key: str = FUSED.key) -> list[Measurement]:
    """A contender's rows that differ in K alone, the first one's norm and threshold."""
    own = [m for m in group if m.contender == key and not m.setting.pinned]
    same = [
        m
        for m in own
        if (m.setting.norm, m.setting.stabilize_threshold)
        == (own[0].setting.norm, own[0].setting.stabilize_threshold)
    ]
    return sorted(same, key=lambda m: m.setting.chunk)


def rival(group: Sequence[Measurement]) -> Measurement | None:
    """What speed is told in multiples of: SpikingJelly's BPTT, else our own plain torch."""
    for key in (RIVAL, PLAIN.key):
        for measurement in group:
            if measurement.contender == key:
                return measurement
    return None


def ratios(bench: Bench) -> list[Ratio]:
    """The comparisons that matter most, of every group; those that were measured."""
    told: list[Ratio] = []
    for group in groups(bench):
        told += _of_group(group, _where(group[0].setting, len(groups(bench))))
    return told + _of_curve(bench) + _of_kept(bench)


def _where(setting: Setting, count: int) -> str:
    if count == 1:
        return setting.precision
    return f"{setting.model}, T {setting.steps}, batch {setting.batch}, {setting.precision}"


def _of_group(group: Sequence[Measurement], where: str) -> list[Ratio]:
    rows = plain_rows(group)
    told = []
    for other in (m for m in group if m.contender in (RIVAL, PLAIN.key)):
        against = ALL[other.contender].label
        for row in rows:
            name = f"{where}: images/s, K {row.setting.chunk}, of {against}"
            times = speed_up(row, other)
            told.append(Ratio(name, times.median, times))
        for row in rows[:1]:
            if row.peak_bytes and other.peak_bytes:
                name = f"{where}: peak memory, K {row.setting.chunk}, of {against}"
                told.append(Ratio(name, row.peak_bytes / other.peak_bytes))
        if other.contender == PLAIN.key and rows and rows[0].kept_bytes and other.kept_bytes:
            name = f"{where}: kept for backward, K {rows[0].setting.chunk}, of {against}"
            told.append(Ratio(name, rows[0].kept_bytes / other.kept_bytes))
    for row in rows:
        if row.convolution_seconds:
            by_turn = [
                whole / alone
                for whole, alone in zip(row.seconds, row.convolution_seconds, strict=True)
            ]
            whole = median(row.seconds) / median(row.convolution_seconds)
            name = f"{where}: time of a step, K {row.setting.chunk}, of its convolutions alone"
            told.append(Ratio(name, whole, Spread(whole, min(by_turn), max(by_turn))))
    return told


def _of_curve(bench: Bench) -> list[Ratio]:
    """How flat the peak memory is in T, of ours and of the rival."""
    told = []
    for key, curve in memory_points(bench).items():
        few, many = min(curve), max(curve)
        if key in (FUSED.key, RIVAL) and few < many:
            name = f"peak memory of {ALL[key].label}: T {many} of T {few}"
            told.append(Ratio(name, curve[many] / curve[few]))
    return told


def _of_kept(bench: Bench) -> list[Ratio]:
    few, many = KEPT_STEPS
    kept = {
        m.setting.steps: m.kept_bytes
        for m in bench.measurements
        if m.contender == FUSED.key and m.setting.batch == KEPT_BATCH and not m.seconds
    }
    first, last = kept.get(few), kept.get(many)
    if not first or not last:
        return []
    return [Ratio(f"kept for backward, K 1: T {many} of T {few}", last / first)]


def memory_points(bench: Bench) -> dict[str, dict[int, int]]:
    """Peak bytes by contender and T, of one network, batch and precision: the curve's."""
    if not groups(bench):
        return {}
    first = groups(bench)[0][0].setting
    points: dict[str, dict[int, int]] = {}
    for m in bench.measurements:
        s = m.setting
        same = (s.model, s.image, s.widths, s.batch, s.precision) == (
            first.model,
            first.image,
            first.widths,
            first.batch,
            first.precision,
        )
        usual = (s.norm, s.stabilize_threshold, s.pinned) == (
            first.norm,
            first.stabilize_threshold,
            False,
        )
        dial = ALL[m.contender].whole or s.chunk == min(first.chunk, s.steps)
        if same and usual and dial and m.peak_bytes:
            points.setdefault(m.contender, {}).setdefault(s.steps, m.peak_bytes)
    return {key: dict(sorted(curve.items())) for key, curve in points.items()}
