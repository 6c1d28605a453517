"""`training.log`: what TensorBoard reads, and that no result depends on it."""

import sys
from pathlib import Path
from typing import Any

import pytest

from steadyspike.errors import UserError
from steadyspike.train.config import Experiment
from steadyspike.train.history import read_history
from steadyspike.train.live_log import live_log
from steadyspike.train.run import train, train_run
from tiny import contents, in_process, refused, tiny_dataset, tiny_experiment, write_params

REASON = "uv pip install --no-deps -r requirements-export.lock"


def logged_experiment(**dotted: Any) -> Experiment:
    return tiny_experiment(**{"training.log": "tensorboard", **dotted})


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    """The value of each epoch by name."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason=REASON
    )
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {
        name: {event.step: event.value for event in events.Scalars(name)}
        for name in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_shows_the_history_and_the_result_is_the_same(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=REASON)
    dataset = tiny_dataset()
    train_run(tiny_experiment(seeds=[1, 2]), dataset, tmp_path / "plain")
    train_run(logged_experiment(seeds=[1, 2]), dataset, tmp_path / "logged")
    plain, logged = contents(tmp_path / "plain"), contents(tmp_path / "logged")
    more = {name for name in logged if name.startswith("tensorboard/")}
    assert logged.keys() - more == plain.keys()
    for name in plain.keys() - {"timing.json"}:
        assert logged[name] == plain[name], name
    history = read_history(tmp_path / "logged/history.csv", "")
    found = scalars(tmp_path / "logged/tensorboard/seed-1")
    assert found.keys() == type(history[0]).model_fields.keys() - {"epoch"}
    for key in ("train_loss", "test_accuracy", "learning_rate"):
        expected = {row.epoch: getattr(row, key) for row in history}
        assert found[key] == pytest.approx(expected, rel=1e-5)
    assert found["silent_layers"] == {row.epoch: len(row.silent_layers) for row in history}
    other = scalars(tmp_path / "logged/tensorboard/seed-2")
    assert other["train_loss"] != found["train_loss"]


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_goes_on_replaces_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason=REASON)
    experiment = logged_experiment(**{"training.epochs": 1})
    trainer, _ = train(experiment, tiny_dataset(), tmp_path / "checkpoint.pt")
    (row,) = trainer.rows
    for epoch, loss in ((2, 9.0), (2, 5.0)):  # the first is lost with the process
        with live_log(experiment, tmp_path, epochs=epoch - 1) as log:
            log(row.model_copy(update={"epoch": epoch, "train_loss": loss}))
    losses = scalars(tmp_path / "tensorboard/seed-0")["train_loss"]
    assert losses == pytest.approx({1: row.train_loss, 2: 5.0})


@pytest.mark.filterwarnings("ignore")
def test_a_log_that_cannot_be_written_ends_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tensorboard = pytest.importorskip("torch.utils.tensorboard", reason=REASON)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensorboard.SummaryWriter, "add_scalar", full)
    trainer, _ = train(logged_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt")
    assert len(trainer.rows) == 2
    assert capsys.readouterr().err.count("the log ends, training goes on") == 1


def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=r"tensorboard.* is not installed: uv pip install"):
        train(logged_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt")


def test_another_log_is_refused(tmp_path: Path) -> None:
    write_params(tmp_path, {"tiny": {"training.log": "wandb"}})
    refused(in_process(tmp_path, "train", "tiny"), r"training\.log: should be 'tensorboard'")
