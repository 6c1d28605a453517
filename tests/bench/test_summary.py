"""Medians, ranges and ratios by hand."""

import pytest
from bench_samples import bench, measurement

from steadyspike.bench.setting import Setting
from steadyspike.bench.summary import (
    groups,
    images_per_second,
    label,
    memory_points,
    outside,
    ratios,
    speed_up,
)


def test_images_per_second_are_a_median_with_its_range() -> None:
    speed = images_per_second(measurement("steadyspike", [2.0, 1.0, 4.0]))
    assert (speed.median, speed.low, speed.high) == (4.0, 2.0, 8.0)


def test_a_ratio_is_of_medians_and_its_range_is_turn_by_turn() -> None:
    ours, other = measurement("steadyspike", [2.0, 1.0, 4.0]), measurement("x", [3.0, 2.0, 4.0])
    times = speed_up(ours, other)
    assert (times.median, times.low, times.high) == (3.0 / 2.0, 1.0, 2.0)


def test_the_share_outside_convolutions() -> None:
    whole = measurement("steadyspike", [2.0, 1.0, 4.0], convolution_seconds=[1.0, 1.5, 2.0])
    assert outside(whole) == 1 - 1.5 / 2.0
    assert outside(measurement("steadyspike", [1.0])) is None


def test_groups_are_those_that_took_turns() -> None:
    both = bench(
        measurements=[
            measurement("steadyspike", [1.0], setting=Setting(precision=precision, chunk=chunk))
            for precision in ("float32", "bfloat16")
            for chunk in (1, 4)
        ]
        + [measurement("steadyspike", [], setting=Setting(steps=2))]
    )
    assert [[m.setting.chunk for m in group] for group in groups(both)] == [[1, 4], [1, 4]]


def test_the_ratios_that_matter() -> None:
    told = {ratio.name: ratio for ratio in ratios(bench())}
    assert told["float32: images/s, K 1, of SpikingJelly (BPTT)"].value == 1.5
    assert told["float32: images/s, K 4, of SpikingJelly (BPTT)"].value == 3.0
    assert told["float32: images/s, K 1, of steadyspike (plain torch)"].value == 2.0
    assert told["float32: peak memory, K 1, of SpikingJelly (BPTT)"].value == 0.25
    assert told["float32: kept for backward, K 1, of steadyspike (plain torch)"].value == 0.55
    alone = told["float32: time of a step, K 1, of its convolutions alone"]
    assert alone.value == 2.0
    assert alone.range is not None
    assert (alone.range.low, alone.range.high) == pytest.approx((1 / 0.9, 2.0))
    assert told["kept for backward, K 1: T 30 of T 2"].value == 1.0
    assert told["peak memory of steadyspike (fused): T 4 of T 2"].value == pytest.approx(10 / 9)
    assert told["peak memory of SpikingJelly (BPTT): T 4 of T 2"].value == 2.0
    assert len(told) == 11  # and of plain torch images/s at K 4 and peak memory


def test_labels_tell_rows_apart() -> None:
    base = Setting()
    rows = {
        "steadyspike (fused), K 1": base,
        "steadyspike (fused), K 1, pinned": base.but(pinned=True),
        "steadyspike (fused), K 2, per-step BN": base.but(chunk=2, norm="per_step"),
        "steadyspike (fused), K 1, no OTS": base.but(stabilize_threshold=False),
    }
    for expected, setting in rows.items():
        assert label(measurement("steadyspike", [1.0], setting=setting), base) == expected
    whole = measurement("spikingjelly-bptt", [1.0], setting=base.but(chunk=4))
    assert label(whole, base) == "SpikingJelly (BPTT)"


def test_the_memory_curve_is_of_one_chunk() -> None:
    assert memory_points(bench()) == {
        "steadyspike": {2: 90_000_000, 4: 100_000_000},  # K 1, not the 300 MB of K 4
        "steadyspike-plain": {4: 200_000_000},
        "spikingjelly-bptt": {2: 200_000_000, 4: 400_000_000},
    }
