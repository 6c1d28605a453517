"""Training steps of other libraries beside ours, as `steadyspike bench --peers` measures them."""

import argparse
import sys
from collections.abc import Iterator
from statistics import median

from common import Options, compared, setting
from record import Row

from steadyspike.bench.frameworks import FRAMEWORKS, FUSED, PLAIN
from steadyspike.bench.measure import Benchmark, Entry, comparisons
from steadyspike.bench.records import Measurement
from steadyspike.bench.tables import bptt_of_spikingjelly, fastest, images_per_second, label
from steadyspike.bench.worker import Worker

TARGET_SPEED, TARGET_MEMORY = 1.5, 0.5  # ours over the fastest BPTT of SpikingJelly
REPEATS, TURN_SECONDS = 3, 0.4


def measure(options: Options) -> Iterator[Row]:
    """One framework after the other, so that one that takes long costs its own row only.

    Their processes start together.
    """
    args = argparse.Namespace(precision=("bfloat16",), chunk=(4, 1), peers=True)
    (entries,) = comparisons(args, setting(options))
    entries.sort(key=_late)
    workers = {entry: Worker(*entry) for entry in entries}
    benchmark = Benchmark(lambda text: print(text, file=sys.stderr), lambda *entry: workers[entry])
    repeats, seconds = (1, 0.0) if options.rehearse else (REPEATS, TURN_SECONDS)
    for entry in entries:
        benchmark.compare([entry], repeats=repeats, turn_seconds=seconds)
        yield _row(benchmark.measurements[-1])
        yield from _ratios(benchmark.measurements)  # each replaces the one before


def _late(entry: Entry) -> int:
    """Order: ours, SpikingJelly's fastest, others; at last what compiles for a minute."""
    key = entry[0].key
    first = (FUSED.key, "spikingjelly-bptt-graph", "spikingjelly-bptt")
    if key in first:
        return first.index(key)
    return 9 if "compiled" in key else 8 if key == PLAIN.key else 7


def _row(m: Measurement) -> Row:
    name = f"{label(m)}, {m.setting.precision}"
    if m.failed:
        ours = FRAMEWORKS[m.framework].package is None
        return Row(name, m.failed, holds=False if ours else None, data=m.model_dump(mode="json"))
    speed = median(images_per_second(m))
    memory = f", peak {m.peak_bytes / 1e9:.2f} GB" if m.peak_bytes else ""
    result = f"{speed:,.0f} images/s, {1e3 * median(m.seconds):.2f} ms{memory}; {m.variant}"
    return Row(name, result, data=m.model_dump(mode="json"))


def _ratios(found: list[Measurement]) -> Iterator[Row]:
    """Ours beside the fastest of SpikingJelly's steps by BPTT."""
    bptt = bptt_of_spikingjelly(found)
    ours = next((m for m in found if m.framework == FUSED.key and m.seconds), None)
    if not bptt or ours is None:
        return
    other = fastest(bptt)
    speed = median(other.seconds) / median(ours.seconds)
    yield Row(
        f"{label(ours)} beside SpikingJelly's fastest BPTT of this run",
        f"{speed:.2f} times as fast as {label(other)}",
        target=compared(speed, "at least", TARGET_SPEED),
        data={"ratio": speed},
    )
    leanest = next((m for m in found if m.framework == FUSED.key and m.setting.chunk == 1), ours)
    if leanest.peak_bytes and other.peak_bytes:
        memory = leanest.peak_bytes / other.peak_bytes
        yield Row(
            f"peak memory, {label(leanest)} beside SpikingJelly's fastest BPTT of this run",
            f"{memory:.2f} of that of {label(other)}",
            target=compared(memory, "at most", TARGET_MEMORY),
            data={"ratio": memory},
        )
