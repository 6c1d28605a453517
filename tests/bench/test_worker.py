"""Real processes, of contenders that take no time."""

from pathlib import Path

import pytest
import torch

from steadyspike.bench.contenders import PLAIN, Contender
from steadyspike.bench.resident import PeakMemory
from steadyspike.bench.setting import Setting
from steadyspike.bench.turns import Worker, WorkerFailed, _environment
from steadyspike.pins import CPU_PINS

TINY = Setting(image=(1, 6, 6), steps=2, batch=3, threads=1)


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def fake(function: str) -> Contender:
    return Contender("fake", "Fake", f"fake_peer:{function}", package="json")


def test_a_worker_measures_what_it_is_asked() -> None:
    with Worker(fake("quick"), TINY) as worker:
        facts = worker.facts()
        assert facts["instructions"] == torch.backends.cpu.get_cpu_capability()
        assert facts["gpu"] is None
        prepared = worker.ask("prepare", variant=None, turn_seconds=0.01)
        assert prepared["variant"] == "quick"
        assert prepared["count"] >= 1
        # What is kept is the input of both layers, of one step: the bytes of floats.
        assert prepared["kept_bytes"] >= 4 * 3 * (36 + 72)
        assert worker.ask("step")["seconds"] > 0
        alone = worker.ask("convolutions")
        assert alone["seconds"] > 0
        # Two steps: forward and the gradient of both weights, and of the linear layer's input.
        convolution, product = 2 * 3 * 2 * 36 * 9, 2 * 3 * 10 * 72
        assert alone["operations"] == 2 * (2 * convolution + 3 * product)
        assert worker.ask("convolutions")["operations"] == alone["operations"]
        more = worker.ask("kept", batch=6)
        assert 1.5 < more["kept_bytes"] / prepared["kept_bytes"] <= 2


def test_into_a_recorded_step_one_looks_by_another_that_is_not() -> None:
    answers = []
    for function in ("quick", "recorded"):
        with Worker(fake(function), TINY) as worker:
            worker.facts()
            prepared = worker.ask("prepare", variant=None, turn_seconds=0.001)
            assert worker.ask("step")["seconds"] > 0
            operations = worker.ask("convolutions")["operations"]
            answers.append((prepared["kept_bytes"], operations))
    assert answers[0] == answers[1]
    assert min(answers[0]) > 0


def test_the_fastest_variant_is_kept_unless_one_is_named() -> None:
    with Worker(fake("uneven"), TINY) as worker:
        worker.facts()
        assert worker.ask("prepare", variant=None, turn_seconds=0.001)["variant"] == "fast"
        assert worker.ask("prepare", variant="slow", turn_seconds=0.001)["variant"] == "slow"


def test_a_process_that_fails_tells_its_last_line() -> None:
    with Worker(fake("broken"), TINY) as worker:
        worker.facts()
        with pytest.raises(WorkerFailed, match=r"^RuntimeError: no kernels for batch 3$"):
            worker.ask("prepare", variant=None, turn_seconds=0.01)
        with pytest.raises(WorkerFailed):
            worker.ask("step")


def test_a_library_that_cannot_be_imported_fails_at_once() -> None:
    contender = Contender("fake", "Fake", "no_such_module:quick", package="json")
    with Worker(contender, TINY) as worker, pytest.raises(WorkerFailed, match="no_such_module"):
        worker.facts()


def test_a_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv("STEADYSPIKE_KERNELS", "off")
    ours = _environment(fake("quick"), TINY.but(threads=3))
    assert ours["OMP_NUM_THREADS"] == ours["MKL_NUM_THREADS"] == "3"
    assert not (CPU_PINS.keys() - {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}) & ours.keys()
    assert "STEADYSPIKE_KERNELS" not in ours
    assert _environment(PLAIN, TINY)["STEADYSPIKE_KERNELS"] == "off"


def test_the_peak_is_of_what_was_taken_since() -> None:
    memory = PeakMemory("cpu")
    if memory.peak() is None:
        pytest.skip("this system does not tell")
    size = 64 << 20
    taken = torch.ones(size // 4)
    del taken
    peak = memory.peak()
    assert peak is not None
    assert 0.9 * size < peak < 1.5 * size
    memory.restart()
    again = memory.peak()
    assert again is not None
    assert again < 0.5 * size
