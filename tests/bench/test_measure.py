"""Who is measured when, and what becomes of those that cannot be."""

from typing import Any

import pytest

from steadyspike.bench.contenders import FUSED, INSTALL_PEERS, PEERS, PLAIN, Contender, why_not
from steadyspike.bench.measure import Measured
from steadyspike.bench.setting import Setting
from steadyspike.bench.turns import BenchFailed, WorkerFailed

PEER = Contender("spikingjelly-sltt", "A peer", "fake_peer:quick", package="json")
ABSENT = Contender("snntorch", "Absent", "fake_peer:quick", package="no_such_library_anywhere")


class Stage:
    """Starts workers that note what they are asked and answer in round numbers."""

    def __init__(self, **dies: str) -> None:
        self.log: list[str] = []
        self.dies = dies  # contender key -> the command at which its process ends

    def start(self, contender: Contender, setting: Setting) -> "Player":
        self.log.append(f"start {contender.key}")
        return Player(self, contender, setting)


class Player:
    def __init__(self, stage: Stage, contender: Contender, setting: Setting) -> None:
        self.stage, self.contender, self.setting = stage, contender, setting

    def __enter__(self) -> "Player":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.stage.log.append(f"end {self.contender.key}")

    def facts(self) -> dict[str, Any]:
        return {"instructions": "AVX2", "gpu": None, "gpu_memory": None, "cuda": None}

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self.stage.log.append(f"{command} {self.contender.key}")
        if self.stage.dies.get(self.contender.key) == command:
            raise WorkerFailed("RuntimeError: it died")
        return {
            "variant": arguments.get("variant") or "fast",
            "peak_bytes": 10,
            "kept_bytes": 5,
            "count": 3,
            "seconds": 0.5,
            "operations": 7,
        }


def quiet(_: str) -> None:
    pass


def compared(stage: Stage, *contenders: Contender, repeats: int = 3) -> Measured:
    measured = Measured()
    entries = [(contender, Setting()) for contender in contenders]
    measured.compare(
        entries,
        repeats=repeats,
        turn_seconds=0.5,
        show=quiet,
        start=stage.start,  # type: ignore[arg-type]
    )
    return measured


def test_everyone_takes_turns() -> None:
    stage = Stage()
    measured = compared(stage, FUSED, PEER, PLAIN)
    turns = [line.removeprefix("step ") for line in stage.log if line.startswith("step ")]
    assert turns == ["steadyspike", "spikingjelly-sltt", "steadyspike-plain"] * 3
    # All are there before the first turn and none is gone before the last.
    first, last = (
        stage.log.index("step steadyspike"),
        len(stage.log) - 1 - stage.log[::-1].index("step steadyspike-plain"),
    )
    assert [line for line in stage.log[first : last + 1] if line.startswith(("start", "end"))] == []
    assert [m.contender for m in measured.measurements] == turns[:3]
    assert [m.seconds for m in measured.measurements] == [[0.5] * 3] * 3


def test_convolutions_alone_take_their_turn_right_after_the_step() -> None:
    stage = Stage()
    measured = compared(stage, FUSED, PEER, repeats=2)
    asked = [line for line in stage.log if not line.startswith(("start", "end", "prepare"))]
    round_ = ["step steadyspike", "convolutions steadyspike", "step spikingjelly-sltt"]
    assert asked == round_ * 2
    ours, peer = measured.measurements
    assert (ours.convolution_seconds, ours.operations) == ([0.5, 0.5], 7)
    assert (peer.convolution_seconds, peer.operations) == ([], None)


@pytest.mark.parametrize("command", ["prepare", "step"])
def test_a_peer_that_fails_is_left_out_and_the_others_go_on(command: str) -> None:
    stage = Stage(**{"spikingjelly-sltt": command})
    measured = compared(stage, PEER, FUSED)
    assert [m.contender for m in measured.measurements] == ["steadyspike"]
    assert len(measured.measurements[0].seconds) == 3
    (skipped,) = measured.skipped
    assert skipped.contender == "spikingjelly-sltt"
    assert skipped.reason == "failed: RuntimeError: it died"
    assert stage.log.count(f"{command} spikingjelly-sltt") == 1


def test_our_own_failure_is_told_and_every_process_ended() -> None:
    stage = Stage(steadyspike="step")
    with pytest.raises(BenchFailed, match=r"steadyspike \(fused\): failed: RuntimeError: it died"):
        compared(stage, PEER, FUSED)
    assert {"end spikingjelly-sltt", "end steadyspike"} <= set(stage.log)


def test_a_missing_peer_is_one_line_with_the_remedy() -> None:
    stage = Stage()
    measured = compared(stage, ABSENT, FUSED)
    (skipped,) = measured.skipped
    assert skipped.reason == f"no_such_library_anywhere is not installed: {INSTALL_PEERS}"
    assert "start snntorch" not in stage.log
    assert len(measured.measurements) == 1


def test_why_not() -> None:
    assert why_not(FUSED, Setting(model="resnet19")) is None
    peer = PEERS[0]
    assert why_not(peer, Setting(model="resnet19")) is not None
    compiled = next(contender for contender in PEERS if contender.device == "cuda")
    assert why_not(compiled, Setting()) == "only on cuda"


def test_the_fastest_variant_is_searched_for_once() -> None:
    stage = Stage()
    measured = compared(stage, FUSED)
    asked: list[Any] = []

    class Watching(Player):
        def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
            asked.append(arguments.get("variant"))
            return super().ask(command, **arguments)

    measured.look(
        [(FUSED, Setting(steps=8)), (FUSED, Setting(precision="bfloat16"))],
        show=quiet,
        start=lambda *entry: Watching(stage, *entry),  # type: ignore[arg-type, return-value]
    )
    assert asked == ["fast", None]  # of another precision another may be the fastest


def test_memory_is_measured_in_a_process_for_each() -> None:
    stage, measured = Stage(), Measured()
    entries = [(FUSED, Setting(steps=steps, batch=1)) for steps in (2, 8)]
    measured.look(entries, show=quiet, start=stage.start)  # type: ignore[arg-type]
    assert stage.log.count("start steadyspike") == 2
    assert not any(line.startswith("step") for line in stage.log)
    assert [(m.setting.steps, m.peak_bytes, m.seconds) for m in measured.measurements] == [
        (2, 10, []),
        (8, 10, []),
    ]


def test_waiting_that_cannot_be_measured_is_a_line() -> None:
    measured = Measured()
    stage = Stage(steadyspike="waiting")
    measured.wait((FUSED, Setting()), "embedded", show=quiet, start=stage.start)  # type: ignore[arg-type]
    assert measured.waiting == []
    assert measured.unread == ["embedded: RuntimeError: it died"]
