"""What a worker measures, of frameworks that take no time, and how its process may fail."""

import os

import pytest
import torch

from bench.fake_peer import fake
from steadyspike.bench.frameworks import FUSED, PLAIN, Framework
from steadyspike.bench.records import Setting
from steadyspike.bench.worker import Session, Worker, _environment
from steadyspike.pins import CPU_PINS
from steadyspike.variables import KERNELS

TINY = Setting(image=(1, 6, 6), widths=(2,), steps=2, batch=3, threads=1)


@pytest.fixture(autouse=True)
def _settings_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session sets for its process is set back."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr("steadyspike.bench.worker.keep_freed_memory", lambda: None)


@pytest.mark.parametrize("framework", ["quick", "recorded"])
def test_time_and_memory_are_measured(framework: str) -> None:
    session = Session(fake(framework), TINY)
    answer = session.prepare(variant=None, turn_seconds=0.001)
    assert answer["variant"] == framework
    assert answer["steps_per_turn"] >= 1
    # Autograd keeps the inputs of both layers, of one step.
    assert answer["kept_bytes"] >= 4 * 3 * (36 + 72)
    assert answer["peak_bytes"] is None or answer["peak_bytes"] > -(1 << 20)
    assert session.training_step()["seconds"] > 0
    if framework == "quick":
        assert session.convolutions()["seconds"] > 0


def test_the_fastest_variant_is_taken_unless_one_is_named() -> None:
    session = Session(fake("uneven"), TINY)
    assert session.prepare(variant=None, turn_seconds=0)["variant"] == "fast"
    assert session.prepare(variant="slow", turn_seconds=0)["variant"] == "slow"


@pytest.mark.parametrize(
    ("framework", "reason"),
    [
        (fake("broken"), "RuntimeError: no kernels for batch 3"),
        (fake("killed"), "the process ended early: SIGKILL"),
        (Framework("f", "F", "x:f", package="no_such_package"), "no_such_package is not installed"),
    ],
    ids=lambda value: getattr(value, "key", ""),
)
def test_a_failure_is_one_line_and_the_end(framework: Framework, reason: str) -> None:
    with Worker(framework, TINY) as worker:
        assert worker.ask("prepare", variant=None, turn_seconds=0.001) == {}
        assert worker.failed is not None
        assert worker.failed.startswith(reason)
        assert "\n" not in worker.failed
        assert worker.ask("training_step") == {}


def test_a_workers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    monkeypatch.setenv(KERNELS, "off")
    before = dict(os.environ)
    with _environment(FUSED, TINY.but(threads=3)):
        assert os.environ["OMP_NUM_THREADS"] == os.environ["MKL_NUM_THREADS"] == "3"
        assert not (CPU_PINS.keys() - {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}) & os.environ.keys()
        assert os.environ[KERNELS] == "on"
    assert os.environ == before
    with _environment(PLAIN, TINY):
        assert os.environ[KERNELS] == "off"
    with _environment(Framework("f", "F", "x:f", environment=("A_KERNEL=torch",)), TINY):
        assert os.environ["A_KERNEL"] == "torch"
    assert os.environ == before


def test_peak_memory_is_of_what_was_taken_since() -> None:
    session = Session.__new__(Session)
    session.cuda = False
    session._reset_peak()
    before = session._memory()
    if before is None:
        pytest.skip("needs /proc")
    size = 64 << 20
    taken = torch.ones(size // 4)
    del taken
    peak = session._memory(peak=True)
    assert peak is not None
    assert 0.9 * size < peak - before < 1.5 * size
