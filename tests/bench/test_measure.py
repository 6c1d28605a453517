"""Who is measured, and when."""

import argparse
from typing import Any

import pytest

from steadyspike.bench.frameworks import FUSED, PLAIN, SPIKINGJELLY, Framework
from steadyspike.bench.measure import Benchmark, comparisons, memory_curve
from steadyspike.bench.options import add_arguments
from steadyspike.bench.records import Setting


def plan(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_a_comparison_has_every_k_and_every_peer_at_each_precision() -> None:
    groups = comparisons(plan("--peers", "--chunk=1, 2,4,2,8"), Setting())
    assert [{setting.precision for _, setting in group} for group in groups] == [
        {"float32"},
        {"bfloat16"},
    ]
    for group in groups:
        assert [(framework.key, setting.chunk) for framework, setting in group] == [
            ("steadyspike", 1),
            ("steadyspike", 2),
            ("steadyspike", 4),  # and no 8: T is 4
            ("steadyspike-plain", 1),
            ("steadyspike-ottt", 1),
            ("steadyspike-sltt", 1),
            ("spikingjelly-bptt", 4),
            ("spikingjelly-ottt", 1),
            ("spikingjelly-sltt", 1),
            ("snntorch", 4),
        ]
    on_gpu = comparisons(plan("--peers"), Setting(device="cuda"))[0]
    assert "spikingjelly-bptt-compiled" in [framework.key for framework, _ in on_gpu]
    alone = comparisons(plan("--chunk=8"), Setting())[0]
    assert alone == [(FUSED, Setting(chunk=4)), (PLAIN, Setting(chunk=4))]


def test_the_memory_curve_adds_the_t_that_no_comparison_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Framework, "unavailable", lambda self: None)
    curve = memory_curve(plan("--peers", "--chunk=4,2"), Setting(steps=2))
    assert [(framework.key, setting.steps, setting.chunk) for framework, setting in curve] == [
        ("steadyspike", 8, 4),
        ("steadyspike-plain", 8, 4),
        ("steadyspike-ottt", 8, 1),
        ("steadyspike-sltt", 8, 1),
        ("spikingjelly-bptt", 8, 8),
        ("spikingjelly-ottt", 8, 1),
        ("spikingjelly-sltt", 8, 1),
        ("snntorch", 8, 8),
    ]


class FakeWorker:
    """Notes requests in ``log`` and answers in round numbers, but fails at ``fails``."""

    def __init__(self, log: list[str], fails: str, framework: Framework, setting: Setting) -> None:
        self.log, self.fails = log, fails
        self.framework, self.setting = framework, setting
        self.failed: str | None = None

    def __enter__(self) -> "FakeWorker":
        self.log.append(f"start {self.framework.key}")
        return self

    def __exit__(self, *_: object) -> None:
        self.log.append(f"end {self.framework.key}")

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        line = f"{request} {self.framework.key}"
        if self.failed is None and line == self.fails:
            self.failed = "RuntimeError: it died"
        if self.failed is not None:
            return {}
        self.log.append(f"{line} {arguments['variant']}" if "variant" in arguments else line)
        match request:
            case "prepare":
                return {"variant": arguments["variant"] or "fast", "peak_bytes": 9}
            case "ready":
                return {}
            case "waiting":
                return {"share": 0.5, "batches": 3, "seconds": 1.0}
        return {"seconds": 0.5 if request == "training_step" else 0.4}


def benchmark(fails: str = "") -> tuple[Benchmark, list[str]]:
    log: list[str] = []
    return Benchmark(lambda _: None, lambda *entry: FakeWorker(log, fails, *entry)), log  # type: ignore[arg-type, return-value]


PEER = Framework("spikingjelly-sltt", "A peer", "")
ENTRIES = [(FUSED, Setting()), (PEER, Setting()), (PLAIN, Setting())]


def test_everyone_takes_turns_convolutions_right_after_their_step() -> None:
    bench, log = benchmark()
    bench.compare(ENTRIES, repeats=3, turn_seconds=0.5)
    turn = [
        "training_step steadyspike",
        "convolutions steadyspike",
        "training_step spikingjelly-sltt",
        "training_step steadyspike-plain",
        "convolutions steadyspike-plain",
    ]
    first = log.index(turn[0])
    assert log[first : first + 15] == turn * 3  # nobody started or ended in between
    assert {line.partition(" ")[0] for line in log[first + 15 :]} == {"end"}
    assert [m.seconds for m in bench.measurements] == [[0.5] * 3] * 3
    assert [m.convolution_seconds for m in bench.measurements] == [[0.4] * 3, [], [0.4] * 3]


@pytest.mark.parametrize("request_", ["ready", "prepare", "training_step", "convolutions"])
@pytest.mark.parametrize("framework", [FUSED, PLAIN])
def test_one_that_fails_is_a_row_and_the_others_go_on(request_: str, framework: Framework) -> None:
    bench, _ = benchmark(fails=f"{request_} {framework.key}")
    bench.compare(ENTRIES, repeats=2, turn_seconds=0.5)
    assert [m.framework for m in bench.measurements] == [entry[0].key for entry in ENTRIES]
    for m in bench.measurements:
        if m.framework == framework.key:
            assert (m.failed, m.seconds) == ("RuntimeError: it died", [])
        else:
            assert (m.failed, m.seconds) == (None, [0.5, 0.5])


def test_memory_is_measured_one_after_the_other_with_the_fastest_variant() -> None:
    bench, log = benchmark()
    entries = [(SPIKINGJELLY, Setting(steps=2)), (SPIKINGJELLY, Setting(steps=8))]
    bench.measure_memory([*entries, (SPIKINGJELLY, Setting(precision="bfloat16"))])
    # In another precision another variant may be the fastest.
    searched = [line.rpartition(" ")[2] for line in log if line.startswith("prepare")]
    assert searched == ["None", "fast", "None"]
    assert [line.partition(" ")[0] for line in log] == ["start", "prepare", "end"] * 3
    assert [m.peak_bytes for m in bench.measurements] == [9, 9, 9]


@pytest.mark.parametrize("fails", ["", "waiting steadyspike"])
def test_waiting_is_measured_or_says_why_not(fails: str) -> None:
    bench, _ = benchmark(fails)
    waiting = bench.measure_waiting("embedded", Setting())
    found = (waiting.share, waiting.failed)
    assert found == ((None, "RuntimeError: it died") if fails else (0.5, None))
