"""A resumed run ends with the bytes of an uninterrupted one, whatever stopped it and when.

Whole processes are stopped in `test_resume_processes.py`.
"""

import math
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from steadyspike.data import Dataset
from steadyspike.data.dataset import Batch, Split
from steadyspike.errors import UserError
from steadyspike.train import accuracy, run
from steadyspike.train.checkpoint import save_checkpoint
from steadyspike.train.config import Experiment
from steadyspike.train.digest import state_digest
from steadyspike.train.run import train, train_run
from steadyspike.train.signals import Stopped
from steadyspike.train.trainer import Trainer
from tiny import (
    OUTPUTS,
    contents,
    finish,
    one_line,
    outputs,
    read_json,
    saved_state,
    tiny_dataset,
    tiny_experiment,
    train_epoch,
)

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "osr_ots": {},
    "one_step_a_call": {"training.chunk": 1, "model.norm": "linear"},
    "bptt": {"model.norm": "batch", "model.stabilize_threshold": False, "model.online": False},
    "traces_and_online_updates": {
        "model.rule": "ndot",
        "training.online_update": True,
        "training.chunk": 1,
    },
    "drawn_steps": {"model.rule": "sltt_k", "training.backward_steps": 2, "training.chunk": 1},
    "bfloat16": {"model.norm": "per_step", "training.precision": "bfloat16"},
}


def outcome(trainer: Trainer) -> Any:
    """What a finished run leaves, weights as digests of their bits."""
    return (
        state_digest(trainer.model.state_dict()),
        state_digest(trainer.best),
        trainer.digests,
        trainer.rows,
    )


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_from_every_batch(name: str, tmp_path: Path) -> None:
    experiment, dataset = tiny_experiment(**CONFIGURATIONS[name]), tiny_dataset()
    whole = finish(Trainer(experiment, dataset))
    assert whole.batches == 3  # the last one smaller
    for stop in range(1, 6):
        trainer = Trainer(experiment, dataset)
        for _ in range(stop // 3):
            train_epoch(trainer)
        if stop % 3:
            batches = trainer.run_epoch()
            for _ in range(stop % 3):
                next(batches)
        path = tmp_path / f"{stop}.pt"
        save_checkpoint(path, experiment, trainer.state())
        del trainer
        state = saved_state(path, experiment)
        assert state is not None
        resumed = Trainer(experiment, dataset)
        resumed.load_state(state)
        assert outcome(finish(resumed)) == outcome(whole), f"resumed after batch {stop}"


def stop_after(batches: int, experiment: Experiment, dataset: Dataset, path: Path) -> None:
    """Leave a checkpoint as an interrupted run does."""
    trainer = Trainer(experiment, dataset)
    run_epoch = trainer.run_epoch()
    for _ in range(batches):
        next(run_epoch)
    save_checkpoint(path, experiment, trainer.state())


@pytest.mark.parametrize(
    ("experiment", "dataset", "why"),
    [
        (
            tiny_experiment(**{"training.learning_rate": 0.2}),
            tiny_dataset(),
            "belongs to another experiment: training.learning_rate is 0.2 and was 0.1",
        ),
        (tiny_experiment(), tiny_dataset(train=41), "the images of embedded are not those that"),
    ],
    ids=["parameters", "images"],
)
def test_a_stale_checkpoint_is_moved_aside(
    experiment: Experiment,
    dataset: Dataset,
    why: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "checkpoint.pt"
    for batches in (1, 2):  # the second run of the two leaves the newest and the one before it
        stop_after(batches, tiny_experiment(), tiny_dataset(), path)
    stale = path.read_bytes()
    trainer, _ = train(experiment, dataset, path)
    note = capsys.readouterr().err.splitlines()[0]
    assert note.startswith(f"steadyspike: note: {path}: ")
    assert why in note
    assert note.endswith(f"it is now {tmp_path / 'stale-checkpoint.pt'}, and training begins anew")
    assert (tmp_path / "stale-checkpoint.pt").read_bytes() == stale
    assert outcome(trainer) == outcome(finish(Trainer(experiment, dataset)))


def test_the_timing_of_a_resumed_run_counts_what_it_trained(tmp_path: Path) -> None:
    experiment, dataset = tiny_experiment(), tiny_dataset()
    stop_after(2, experiment, dataset, tmp_path / "checkpoint.pt")
    train_run(experiment, dataset, tmp_path)
    timing = read_json(tmp_path / "timing.json")["0"]
    assert timing["images"] == 2 * 40 - 2 * 16
    seconds = timing["images"] / timing["images_per_second"]
    assert seconds == pytest.approx(timing["seconds"], abs=6e-4)  # both are rounded


def test_two_interleaved_trainers_do_not_disturb_each_other() -> None:
    experiment, dataset = tiny_experiment(), tiny_dataset()
    whole = outcome(finish(Trainer(experiment, dataset)))
    one, other = (Trainer(tiny_experiment(seeds=[seed]), dataset) for seed in (0, 1))
    while not one.finished:
        for _ in zip(one.run_epoch(), other.run_epoch(), strict=True):
            pass
        one.finish_epoch()
        other.finish_epoch()
    assert outcome(one) == whole
    assert outcome(other) != whole


def interrupt(monkeypatch: pytest.MonkeyPatch, number: int, batch: int) -> None:
    """Signal `number` arrives in the middle of batch `batch`, counted from here."""
    train_batch = Trainer._train_batch
    seen = 0

    def interrupted(self: Trainer, *arguments: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == batch:
            signal.raise_signal(number)
        train_batch(self, *arguments)

    monkeypatch.setattr(Trainer, "_train_batch", interrupted)


@pytest.mark.parametrize("batch", [1, 3, 4, 6])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_waits_for_its_batch_and_writes_a_checkpoint(
    batch: int, number: int, status: int, tmp_path: Path
) -> None:
    experiment, dataset = tiny_experiment(), tiny_dataset()
    path = tmp_path / "checkpoint.pt"
    with pytest.MonkeyPatch.context() as monkeypatch:
        interrupt(monkeypatch, number, batch)
        with pytest.raises(Stopped) as stopped:
            train(experiment, dataset, path)
    assert stopped.value.exit_status == status
    saved = saved_state(path, experiment)
    assert saved is not None
    assert saved["epoch"] * 3 + saved["batch"] == batch
    resumed, _ = train(experiment, dataset, path)
    assert outcome(resumed) == outcome(finish(Trainer(experiment, dataset)))


def test_a_checkpoint_every_few_minutes_within_an_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = []

    def save(path: Path, experiment: Experiment, state: dict[str, Any]) -> None:
        saved.append((state["epoch"], state["batch"]))

    monkeypatch.setattr(run, "save_checkpoint", save)
    train(tiny_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt")
    assert saved == [(1, 0), (2, 0)]
    saved.clear()
    train(tiny_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt", checkpoint_every=0.0)
    assert saved == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of two seeds, 3 and 5, trained without interruption; read-only."""
    folder = tmp_path_factory.mktemp("whole")
    train_run(tiny_experiment(seeds=[3, 5]), tiny_dataset(), folder)
    return folder


def test_a_signal_while_the_last_checkpoint_is_written_is_not_lost(
    whole: Path, tmp_path: Path
) -> None:
    """Otherwise the second seed's run would begin, and the sender would wait in vain."""
    experiment, dataset = tiny_experiment(seeds=[3, 5]), tiny_dataset()
    begun: set[int] = set()

    def save(path: Path, one: Experiment, state: dict[str, Any]) -> None:
        begun.add(one.seed)
        save_checkpoint(path, one, state)
        if state["epoch"] == one.training.epochs and one.seed == 3:
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "save_checkpoint", save)
        with pytest.raises(Stopped) as stopped:
            train_run(experiment, dataset, tmp_path)
    assert stopped.value.exit_status == 143
    assert begun == {3}
    train_run(experiment, dataset, tmp_path)
    for place in ("", "seeds/5"):
        assert outputs(tmp_path / place) == outputs(whole / place)


def test_several_seeds_resume_each_from_its_own_checkpoint(whole: Path, tmp_path: Path) -> None:
    experiment, dataset = tiny_experiment(seeds=[3, 5]), tiny_dataset()
    with pytest.MonkeyPatch.context() as patch:
        interrupt(patch, signal.SIGINT, 8)  # in the second seed's first epoch
        with pytest.raises(Stopped):
            train_run(experiment, dataset, tmp_path / "stopped")
    train_run(experiment, dataset, tmp_path / "stopped")
    expected, resumed = contents(whole), contents(tmp_path / "stopped")
    assert expected.keys() == resumed.keys()
    assert not [name for name in resumed if "checkpoint" in name]
    differing = {Path(name).name for name in expected if expected[name] != resumed[name]}
    assert differing <= {"timing.json", "environment.json"}
    train_run(tiny_experiment(seeds=[5]), dataset, tmp_path / "5")
    assert outputs(tmp_path / "5")["model.safetensors"] == expected["seeds/5/model.safetensors"]


@pytest.mark.parametrize("broken", OUTPUTS)
def test_killed_between_two_outputs(broken: str, whole: Path, tmp_path: Path) -> None:
    experiment, dataset = tiny_experiment(seeds=[3]), tiny_dataset()
    write = run.write_atomically

    def killed(path: Path, content: bytes | str) -> None:
        if path.name == broken:
            raise KeyboardInterrupt
        write(path, content)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            train_run(experiment, dataset, tmp_path)
    assert (tmp_path / "checkpoint.pt").exists()
    train_run(experiment, dataset, tmp_path)
    for name in ("model.safetensors", "best.safetensors", "history.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_signal_does_not_wait_for_the_end_of_an_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, dataset = tiny_experiment(), tiny_dataset()
    path = tmp_path / "checkpoint.pt"
    shown: list[int] = []

    def presentations(*arguments: Any) -> Any:
        for seen in whole(*arguments):
            shown.append(1)
            if len(shown) == 2:  # in the second of three test batches
                signal.raise_signal(signal.SIGTERM)
            yield seen

    whole = accuracy.presentations
    with monkeypatch.context() as patch:
        patch.setattr(accuracy, "presentations", presentations)
        with pytest.raises(Stopped) as stopped:
            train(experiment, dataset, path)
    assert stopped.value.exit_status == 143
    assert len(shown) == 2
    saved = saved_state(path, experiment)
    assert saved is not None
    assert (saved["epoch"], saved["batch"]) == (0, 3)
    resumed, _ = train(experiment, dataset, path)
    assert outcome(resumed) == outcome(finish(Trainer(experiment, dataset)))


@pytest.mark.parametrize("last", [0, 2])
def test_a_sample_that_cannot_be_read_leaves_a_checkpoint(
    last: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, dataset, path = tiny_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt"
    gather = Split.gather

    def broken(self: Split, *arguments: Any) -> Iterator[Batch]:
        for number, batch in enumerate(gather(self, *arguments)):
            if number == last:
                raise UserError("x.JPEG: expected an image")
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Split, "gather", broken)
        with pytest.raises(UserError, match=r"x\.JPEG"):
            train(experiment, dataset, path)
    saved = saved_state(path, experiment)
    assert saved is not None
    assert (saved["epoch"], saved["batch"]) == (0, last)
    resumed, _ = train(experiment, dataset, path)
    assert outcome(resumed) == outcome(finish(Trainer(experiment, dataset)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model: model["classifier.bias"].fill_(math.nan), "classifier.bias is not finite"),
        (lambda model: model["features.0.norm.running_var"].neg_(), "running_var is negative"),
        (
            lambda model: model.update({"classifier.bias": model["classifier.bias"].double()}),
            "classifier.bias is float64, expected float32",
        ),
    ],
)
def test_a_checkpoint_that_no_training_leaves_is_refused(
    tmp_path: Path, damage: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    experiment, dataset, path = tiny_experiment(), tiny_dataset(), tmp_path / "checkpoint.pt"
    trainer = Trainer(experiment, dataset)
    next(trainer.run_epoch())
    state = trainer.state()
    state["model"] = dict(state["model"])
    damage(state["model"])
    save_checkpoint(path, experiment, state)
    with pytest.raises(UserError) as caught:
        train(experiment, dataset, path)
    one_line(caught.value, f"{path}: ", words, "remove the file")
