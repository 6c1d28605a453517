import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from steadyspike.train import run, signals
from steadyspike.train.signals import Overdue, Stopped, stop_request
from steadyspike.train.trainer import Trainer
from tiny import environment, saved_state, tiny_dataset, tiny_experiment


@pytest.mark.parametrize(
    ("numbers", "status"),
    [
        ([], None),
        ([signal.SIGINT], 130),
        ([signal.SIGTERM], 143),
        ([signal.SIGINT, signal.SIGTERM], 143),
    ],
)
def test_a_signal_is_recorded_and_the_body_continues(
    numbers: list[int], status: int | None
) -> None:
    before = [signal.getsignal(number) for number in (*signals.SIGNALS, signal.SIGALRM)]
    with stop_request() as request:
        for number in numbers:
            signal.raise_signal(number)
        assert request.exit_status == status
    after = [signal.getsignal(number) for number in (*signals.SIGNALS, signal.SIGALRM)]
    assert after == before


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_after_another_signal_interrupts_at_once(first: int) -> None:
    with stop_request():
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_an_error_restores_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(LookupError), stop_request():
        raise LookupError
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("cause", ["signal", "deadline"])
def test_what_waits_is_interrupted_after_the_grace(
    cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.3)
    began = time.monotonic()
    deadline = began + 0.1 if cause == "deadline" else None
    if cause == "signal":
        Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with pytest.raises(Overdue), stop_request(deadline):
        time.sleep(60)
    assert 0.3 <= time.monotonic() - began < 5


def test_a_checkpoint_is_written_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.1)
    monkeypatch.setattr(signals, "LIMIT", 0.2)
    with stop_request() as request, request.saving():
        signal.raise_signal(signal.SIGTERM)
        time.sleep(0.6)


def test_what_no_handler_interrupts_ends_at_the_limit() -> None:
    """Hashing holds the main thread outside Python, as an exchange with a lost process does."""
    program = """
import hashlib, signal
from steadyspike.train import signals
signals.GRACE, signals.LIMIT = 0.2, 0.5
with signals.stop_request():
    print(flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 1 << 30)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.terminate()
    _, errors = process.communicate(timeout=10)
    assert process.returncode == 143
    assert "goes on from the last checkpoint" in errors


@pytest.mark.parametrize("where", ["batches", "evaluate"])
def test_training_that_waits_for_images_ends_with_a_checkpoint(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.3)
    experiment, dataset = tiny_experiment(), tiny_dataset()
    with pytest.MonkeyPatch.context() as patch:

        def wait(*arguments: object) -> None:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)

        split = dataset.train if where == "batches" else dataset.test
        gather = type(split).gather

        def slow(self, parts, seed, epoch):  # type: ignore[no-untyped-def]
            for number, batch in enumerate(gather(self, parts, seed, epoch)):
                if len(self) == len(split) and number == 1:
                    wait()
                yield batch

        patch.setattr(type(split), "gather", slow)
        with pytest.raises(Stopped) as stopped:
            run.train(experiment, dataset, tmp_path / "checkpoint.pt")
    assert stopped.value.exit_status == 143
    saved = saved_state(tmp_path / "checkpoint.pt", experiment)
    assert saved is not None
    assert saved["batch"] == (1 if where == "batches" else 3)
    trainer, _ = run.train(experiment, dataset, tmp_path / "checkpoint.pt")
    whole, _ = run.train(experiment, dataset, tmp_path / "other" / "checkpoint.pt")
    assert (trainer.rows, trainer.digests) == (whole.rows, whole.digests)


def test_a_batch_that_takes_too_long_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is no place to resume from: the checkpoint before it is kept."""
    monkeypatch.setattr(signals, "GRACE", 0.3)
    train_batch = Trainer._train_batch

    def slow(self: Trainer, *arguments: object) -> None:
        if self.batch == 2:
            signal.raise_signal(signal.SIGTERM)
            time.sleep(60)
        train_batch(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainer, "_train_batch", slow)
    experiment, path = tiny_experiment(), tmp_path / "checkpoint.pt"
    with pytest.raises(Stopped):
        run.train(experiment, tiny_dataset(), path, checkpoint_every=0.0)
    saved = saved_state(path, experiment)
    assert saved is not None
    assert saved["batch"] == 2
