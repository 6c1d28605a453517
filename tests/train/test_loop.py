import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.accuracy import Score
from steadyspike.train.digest import state_digest
from steadyspike.train.network import build_model
from steadyspike.train.run import train, train_run
from steadyspike.train.trainer import Diverged, Trainer, cosine
from tiny import OUTPUTS, batches, finish, read_json, saved_state, tiny_dataset, tiny_experiment


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


def trained(dataset: Dataset, **dotted: Any) -> Trainer:
    return finish(Trainer(tiny_experiment(**dotted), dataset))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


@pytest.mark.parametrize("norm", ["osr", "per_step", "linear", "ws", "bntt", "tab"])
def test_every_chunk_gives_the_same_epoch_to_rounding(dataset: Dataset, norm: str) -> None:
    runs = [
        trained(dataset, **{"training.chunk": chunk, "training.epochs": 1, "model.norm": norm})
        for chunk in (4, 3, 2, 1)
    ]
    for run in runs[1:]:
        torch.testing.assert_close(weights(run.model), weights(runs[0].model), rtol=1e-3, atol=1e-4)
        assert run.rows[0].train_loss == pytest.approx(runs[0].rows[0].train_loss, rel=1e-5)
        assert run.rows[0].train_accuracy == runs[0].rows[0].train_accuracy


@pytest.mark.parametrize("norm", ["osr", "batch", "ws", "tab", "tebn"])
def test_it_learns(norm: str) -> None:
    """Of ten classes a guess gets 10 %."""
    options = {"training.epochs": 12, "model.dropout": 0.0, "dataset.augmentation": "none"}
    bptt = norm in ("batch", "tebn")
    online = {"model.online": not bptt, "model.stabilize_threshold": not bptt}
    run = trained(tiny_dataset(200), **options, **online, **{"model.norm": norm})
    assert run.rows[-1].train_accuracy > 25
    assert run.rows[-1].test_accuracy > 20
    assert run.rows[-1].train_loss < run.rows[0].train_loss - 0.05


def test_a_seed_decides_everything_and_another_decides_otherwise(dataset: Dataset) -> None:
    torch.manual_seed(1)
    one = trained(dataset, seeds=[7])
    torch.manual_seed(2)
    again = trained(dataset, seeds=[7])
    other = trained(dataset, seeds=[8])
    assert state_digest(one.model.state_dict()) == state_digest(again.model.state_dict())
    assert one.rows == again.rows
    assert not torch.allclose(weights(one.model), weights(other.model))


def test_initial_weights_depend_on_the_seed_alone(dataset: Dataset) -> None:
    one, other = (
        build_model(tiny_experiment(**{"training.batch": batch, "model.tau": tau}), dataset)
        for batch, tau in ((16, 2.0), (8, 3.0))
    )
    assert weights(one).equal(weights(other))


@pytest.mark.parametrize("norm", ["osr", "per_step", "linear", "batch"])
@pytest.mark.parametrize("stabilize", [True, False])
@pytest.mark.parametrize("online", [True, False])
def test_every_method_trains(dataset: Dataset, norm: str, stabilize: bool, online: bool) -> None:
    method = {"norm": norm, "stabilize_threshold": stabilize, "online": online}
    run = trained(dataset, model=method, **{"training.epochs": 1})
    initial = weights(build_model(run.experiment, dataset))
    assert not torch.equal(weights(run.model), initial)
    assert weights(run.model).isfinite().all()
    assert math.isfinite(run.rows[0].train_loss + run.rows[0].test_loss)


def test_bfloat16_trains_close_to_float32(dataset: Dataset) -> None:
    options = {"training.epochs": 1, "model.dropout": 0.0}
    low = trained(dataset, **options, **{"training.precision": "bfloat16"})
    full = trained(dataset, **options)
    assert weights(low.model).isfinite().all()
    assert not weights(low.model).equal(weights(full.model))
    assert low.rows[0].train_loss == pytest.approx(full.rows[0].train_loss, rel=0.05)
    assert {parameter.dtype for parameter in low.model.parameters()} == {torch.float32}


def test_an_epoch_by_hand(dataset: Dataset) -> None:
    """Loss, accuracy and images of an epoch are those of its batches, weighed by their size."""
    trainer = Trainer(tiny_experiment(), dataset)
    images, losses, correct = [], [], []
    for count in trainer.run_epoch():
        images.append(count)
        losses.append(trainer.losses[trainer.batch - 1].item() / count)
        correct.append(trainer.correct.sum().item())
    assert images == [16, 16, 8]
    loss, accuracy = trainer.running_metrics()
    assert loss == pytest.approx(sum(a * b for a, b in zip(images, losses, strict=True)) / 40)
    assert accuracy == pytest.approx(100 * correct[-1] / 40)
    assert 1.5 < loss < 4  # about that of guessing, ln 10


@pytest.mark.parametrize(
    ("epoch", "expected"), [(0, 0.1), (1, 0.085355339), (2, 0.05), (3, 0.014644661), (4, 0.0)]
)
def test_cosine_annealing(epoch: int, expected: float) -> None:
    assert cosine(0.1, epoch, 4) == pytest.approx(expected, abs=1e-9)


def test_the_schedule_is_constant_within_an_epoch_and_recorded(dataset: Dataset) -> None:
    trainer = Trainer(tiny_experiment(**{"training.epochs": 3}), dataset)
    seen = []
    for _ in batches(trainer):
        seen.append(trainer.optimizer.param_groups[0]["lr"])
    assert seen == pytest.approx([0.1] * 3 + [0.075] * 3 + [0.025] * 3)
    assert [row.learning_rate for row in trainer.rows] == pytest.approx([0.1, 0.075, 0.025])
    assert [row.epoch for row in trainer.rows] == [1, 2, 3]


def test_digests_are_those_of_the_weights_after_the_named_batches(dataset: Dataset) -> None:
    trainer = Trainer(tiny_experiment(**{"training.epochs": 4}), dataset)
    after = {}
    for number, _ in enumerate(batches(trainer), 1):
        after[number] = state_digest(trainer.model.state_dict())
    assert len(after) == 12
    assert trainer.digests == {str(batch): after[batch] for batch in (1, 2, 5, 10)}
    assert after[1] != after[2]


def test_the_best_weights_are_those_of_the_best_epoch(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = iter([10.0, 30.0, 30.0, 20.0])
    monkeypatch.setattr(
        "steadyspike.train.trainer.evaluate", lambda *_: Score(1.0, (), (next(accuracies),))
    )
    states = []
    finish_epoch = Trainer.finish_epoch

    def remember(self: Trainer, *between: Any) -> Any:
        states.append({name: value.clone() for name, value in self.model.state_dict().items()})
        return finish_epoch(self, *between)

    monkeypatch.setattr(Trainer, "finish_epoch", remember)
    train_run(tiny_experiment(**{"training.epochs": 4}), dataset, tmp_path)
    best = safetensors.torch.load_file(tmp_path / "best.safetensors")
    last = safetensors.torch.load_file(tmp_path / "model.safetensors")
    assert state_digest(best) == state_digest(states[1])
    assert state_digest(last) == state_digest(states[3])
    assert state_digest(best) != state_digest(last)


def test_a_run_folder(dataset: Dataset, tmp_path: Path) -> None:
    experiment = tiny_experiment()
    train_run(experiment, dataset, tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        *OUTPUTS,
        "environment.json",
        "timing.json",
    }
    digests = read_json(tmp_path / "digests.json")
    assert digests["fingerprint"] == experiment.fingerprint()
    assert list(digests["batches"]) == ["1", "2", "5"]  # six batches in all
    assert len((tmp_path / "history.csv").read_text().splitlines()) == 3
    model = build_model(experiment, dataset)
    model.load_state_dict(safetensors.torch.load_file(tmp_path / "model.safetensors"))
    assert read_json(tmp_path / "timing.json")["0"]["images_per_second"] > 0  # of seed 0


# A loss that is not finite


def absurd(learning_rate: float, epoch: int, epochs: int) -> float:
    """The schedule, with an absurd learning rate after the first epoch."""
    return 1e30 if epoch else cosine(learning_rate, epoch, epochs)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (16, r"^tiny: .* epoch 1, batch [23] is not finite"),
        # Every training loss is finite here; only the test loss shows it.
        (40, "the test loss after epoch 1 is not finite"),
    ],
)
def test_a_diverging_run_is_reported(
    dataset: Dataset, tmp_path: Path, batch: int, message: str
) -> None:
    path = tmp_path / "checkpoint.pt"
    options = {"learning_rate": 1e30, "batch": batch, "epochs": 1}
    with pytest.raises(Diverged, match=message) as raised:
        train(tiny_experiment(training=options), dataset, path)
    assert raised.value.exit_status == 1
    assert not path.exists()


def test_a_run_resumes_from_the_last_checkpoint_before_it_diverged(
    dataset: Dataset, tmp_path: Path
) -> None:
    experiment, path = tiny_experiment(**{"training.epochs": 3}), tmp_path / "checkpoint.pt"
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("steadyspike.train.trainer.cosine", absurd)
        with pytest.raises(Diverged, match=r"epoch 2, batch [23] is not finite"):
            train(experiment, dataset, path)
    saved = saved_state(path, experiment)
    assert saved is not None
    assert (saved["epoch"], saved["batch"]) == (1, 0)
    resumed, _ = train(experiment, dataset, path)
    whole, _ = train(experiment, dataset, tmp_path / "other.pt")
    assert weights(resumed.model).equal(weights(whole.model))


# Experiments that no network can be built for


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cuda"}, r"^tiny: device: torch finds no GPU here, expected cpu"),
        ({"model.widths": [4, *"PPPP"]}, r"^tiny: model\.widths: at most 3 'P' .*, got 4"),
        ({"model.widths": ["P", "P"]}, r"^tiny: model\.widths must hold a convolution"),
        (
            {"model.name": "resnet19", "model.widths": [8, 8], "model.blocks": [1]},
            r"^tiny: model\.widths and blocks must give each stage a width",
        ),
        (
            {"model.name": "resnet19", "model.widths": [8] * 6, "model.blocks": [1] * 6},
            r"^tiny: model\.image_size 12 leaves nothing after 6 stages",
        ),
    ],
)
def test_what_the_machine_or_the_images_do_not_allow_is_refused(
    dataset: Dataset, options: dict[str, Any], message: str
) -> None:
    if "device" in options and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match=message):
        Trainer(tiny_experiment(**options), dataset)


def test_a_checkpoint_of_another_version_is_refused(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment, path = tiny_experiment(), tmp_path / "checkpoint.pt"
    state = Trainer.state

    def renamed(self: Trainer) -> dict[str, Any]:
        changed = state(self)
        changed["model"] = {f"old.{name}": value for name, value in changed["model"].items()}
        return changed

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "state", renamed)
        train(experiment, dataset, path)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"checkpoint\.pt: .*another version.*remove the file"):
        train(experiment, dataset, path)
    assert path.read_bytes() == before


def test_fallbacks_are_counted_by_epoch(dataset: Dataset) -> None:
    """With a limit that no step keeps, OSR falls back in every layer, step and batch."""
    run = trained(dataset, **{"model.fallback_ratio": 1e-9})
    layers, steps, batches = 2, 4, 3
    assert [row.osr_fallbacks for row in run.rows] == [layers * steps * batches] * 2
    run = trained(dataset, **{"model.fallback_ratio": 1e9})
    assert [row.osr_fallbacks for row in run.rows] == [0, 0]


@pytest.mark.parametrize(
    ("flags", "options", "told"),
    [
        ({"avx2"}, {"training.precision": "bfloat16"}, True),
        ({"avx2", "avx512_bf16"}, {"training.precision": "bfloat16"}, False),
        ({"avx2"}, {}, False),
    ],
)
def test_a_precision_that_this_processor_emulates_is_told_before_training(
    flags: set[str],
    options: dict[str, str],
    told: bool,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("steadyspike.train.network.cpu_flags", lambda: frozenset(flags))
    train_run(tiny_experiment(**options), dataset, tmp_path)
    first = capsys.readouterr().err.splitlines()[0]
    assert ("no AVX512_BF16, so bfloat16 is about ten times slower" in first) is told
