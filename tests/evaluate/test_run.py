"""`steadyspike evaluate`: what it measures of a finished run, and the runs it refuses."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.evaluate import run as run_module
from steadyspike.evaluate.metrics import read_layers, read_metrics
from steadyspike.evaluate.run import evaluate_run, measure_weights
from steadyspike.snn.neuron import LIF, InferenceThreshold
from steadyspike.train.accuracy import Presentation, Score, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.history import read_history
from steadyspike.train.network import build_model
from steadyspike.train.run import train_run, weights_file
from tiny import change_json, one_line, tiny_dataset, tiny_experiment

SEEDS = {"seeds": [3, 5]}


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return tiny_experiment(**SEEDS)


@pytest.fixture(scope="module")
def measured(
    experiment: Experiment, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Trained and evaluated: the first seed in the folder itself, the other below it."""
    folder = tmp_path_factory.mktemp("run")
    train_run(experiment, dataset, folder)
    evaluate_run(experiment, dataset, folder)
    return folder


@pytest.fixture
def trained(measured: Path, tmp_path: Path) -> Path:
    """A copy to change, which has not been evaluated."""
    ignored = shutil.ignore_patterns("metrics.json", "layers.json")
    return shutil.copytree(measured, tmp_path / "run", ignore=ignored)


def test_metrics_agree_with_the_histories(measured: Path) -> None:
    metrics = read_metrics(measured / "metrics.json")
    histories = [
        read_history(folder / "history.csv", "") for folder in (measured, measured / "seeds" / "5")
    ]
    assert metrics.seeds is not None
    for seed, history in zip(metrics.seeds.values(), histories, strict=True):
        accuracies = [row.test_accuracy for row in history]
        assert seed.accuracy.last == pytest.approx(accuracies[-1], abs=1e-3)
        assert seed.accuracy.best == pytest.approx(max(accuracies), abs=1e-3)
        assert seed.accuracy.best_epoch == accuracies.index(max(accuracies)) + 1
        assert seed.loss.train == history[-1].train_loss
        assert seed.loss.test == pytest.approx(history[-1].test_loss, rel=1e-5)
        assert seed.osr_fallbacks == sum(row.osr_fallbacks for row in history)
        assert seed.inference.live == seed.accuracy.last
        assert seed.after_steps.inference.votes_accuracy[-1] == seed.accuracy.last
    one, other = (seed.accuracy.last for seed in metrics.seeds.values())
    assert one != other
    assert metrics.accuracy.last == pytest.approx((one + other) / 2)
    assert metrics.experiment == "tiny"
    # 4 filters of 3x3 and a bias, 4 of 4x3x3, two norms, a linear layer of 4 to 10
    assert metrics.parameters == (4 * 9 + 4) + (4 * 36 + 4) + 2 * 8 + (40 + 10)


def test_layers_agree_with_the_metrics(measured: Path) -> None:
    first, second = read_layers(measured / "layers.json").layers
    assert (first.name, second.name) == ("features.0.neuron", "features.2.neuron")
    seeds = 2
    assert sum(first.counts[0]) + first.below[0] + first.above[0] == seeds * 23 * 4 * 12 * 12
    # Average pooling quarters the positions.
    rates = zip(first.firing_rate, second.firing_rate, strict=True)
    expected = [(4 * large + small) / 5 for large, small in rates]
    assert read_metrics(measured / "metrics.json").firing_rate.per_step == pytest.approx(
        expected, abs=2e-6
    )


def test_measuring_again_gives_the_same_bytes(
    trained: Path, measured: Path, experiment: Experiment, dataset: Dataset
) -> None:
    evaluate_run(experiment, dataset, trained)
    for name in ("metrics.json", "layers.json"):
        assert (trained / name).read_bytes() == (measured / name).read_bytes()


def test_each_seed_has_its_accuracies(
    measured: Path, experiment: Experiment, dataset: Dataset
) -> None:
    metrics = read_metrics(measured / "metrics.json")
    assert metrics.seeds is not None
    assert list(metrics.seeds) == ["3", "5"]
    for seed, place in (("3", measured), ("5", measured / "seeds" / "5")):
        score = measure_weights(experiment, dataset, place / "model.safetensors", None, None)
        assert metrics.seeds[seed].accuracy.last == round(score.accuracy, 4)
        assert metrics.seeds[seed].after_steps.inference.step_accuracy == [
            round(accuracy, 4) for accuracy in score.step_accuracy
        ]


# Sources of the threshold


def test_a_network_without_thresholds_to_choose(dataset: Dataset, tmp_path: Path) -> None:
    experiment = tiny_experiment(**{"model.stabilize_threshold": False, "training.epochs": 1})
    train_run(experiment, dataset, tmp_path)
    with pytest.raises(UserError, match=r"tiny: --threshold fixed: .*stabilize_threshold"):
        measure_weights(experiment, dataset, tmp_path / "model.safetensors", "fixed", None)
    evaluate_run(experiment, dataset, tmp_path)
    metrics = read_metrics(tmp_path / "metrics.json")
    assert metrics.inference.model_dump(exclude_none=True) == {"live": metrics.accuracy.last}
    assert metrics.evaluation.threshold == "constant"


@pytest.mark.parametrize("threshold", ["live", "fixed", "layer"])
def test_each_threshold_is_measured_whichever_is_the_experiments_own(
    threshold: InferenceThreshold,
    dataset: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dotted = {"training.epochs": 1, "evaluation.steps": 3, "model.inference_threshold": threshold}
    experiment = tiny_experiment(**dotted)
    train_run(experiment, dataset, tmp_path)

    def score_of_settings(model: nn.Module, dataset: Dataset, how: Presentation) -> Score:
        """The accuracy encodes threshold and batch."""
        evaluate(model, dataset, how)
        (used,) = {layer.inference_threshold for layer in model.modules() if isinstance(layer, LIF)}
        accuracy = (0.0, 0.0, {"live": 30.0, "fixed": 60.0, "layer": 80.0}[used] + how.batch)
        return Score(1.0, accuracy, accuracy)

    monkeypatch.setattr(run_module, "evaluate", score_of_settings)
    evaluate_run(experiment, dataset, tmp_path)
    metrics = read_metrics(tmp_path / "metrics.json")
    assert metrics.inference.model_dump() == {"live": 40, "fixed": 70, "layer": 90, "batch_1": 31}
    assert metrics.accuracy.last == getattr(metrics.inference, threshold)
    assert metrics.evaluation.model_dump() == {
        "test_images": 23,
        "batch": 10,
        "steps": 3,
        "threshold": threshold,
    }

    def accuracy(threshold: InferenceThreshold | None, batch: int | None) -> float:
        weights = tmp_path / "model.safetensors"
        return measure_weights(experiment, dataset, weights, threshold, batch).accuracy

    assert accuracy(None, None) == metrics.accuracy.last
    assert (accuracy("live", 5), accuracy("fixed", 1), accuracy("layer", 1)) == (35, 61, 81)


def test_weights_without_learned_thresholds(dataset: Dataset, tmp_path: Path) -> None:
    experiment, weights = tiny_experiment(), tmp_path / "released.safetensors"
    weights.write_bytes(weights_file(build_model(experiment, dataset).state_dict()))
    measure_weights(experiment, dataset, weights, None, None)
    with pytest.raises(UserError, match=r"released\.safetensors: .*--threshold live"):
        measure_weights(experiment, dataset, weights, "layer", None)


# Refused


def refused(experiment: Experiment, dataset: Dataset, folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        evaluate_run(experiment, dataset, folder)
    one_line(caught.value, *words)
    assert not (folder / "metrics.json").exists()
    assert not (folder / "layers.json").exists()


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda path: change_json(path, change)


TRAIN = "train it with `steadyspike train tiny`"


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        *(
            (place + name, Path.unlink, f"not found: {TRAIN}")
            for place in ("", "seeds/5/")
            for name in ("digests.json", "history.csv", "model.safetensors")
        ),
        (
            "model.safetensors",
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "damaged safetensors file",
        ),
        ("model.safetensors", lambda path: path.write_bytes(b""), "damaged safetensors file"),
        (
            "model.safetensors",
            lambda path: shutil.copy(path.parent / "seeds" / "5" / path.name, path),  # same shapes
            f"not the weights that digests.json records: {TRAIN}",
        ),
        (
            "digests.json",
            changed(lambda d: d.pop("fingerprint")),
            "fingerprint: Field required",
        ),
        ("digests.json", changed(lambda d: d.update(weights_sha256="a" * 63)), "weights_sha256: "),
        ("digests.json", changed(lambda d: d.update(batches=[])), "batches: "),
    ],
)
def test_a_run_that_is_unfinished_or_damaged(
    file: str,
    damage: Callable[[Path], object],
    words: str,
    experiment: Experiment,
    dataset: Dataset,
    trained: Path,
) -> None:
    damage(trained / file)
    refused(experiment, dataset, trained, f"{trained / file}: {words}")


def test_other_parameters(dataset: Dataset, trained: Path) -> None:
    refused(
        tiny_experiment(**SEEDS, **{"training.momentum": 0.8}),
        dataset,
        trained,
        f"{trained / 'digests.json'}: fingerprint: trained with other parameters than tiny has now",
        TRAIN,
    )
    # What only moves work about may have changed.
    evaluate_run(tiny_experiment(**SEEDS, **{"training.chunk": 2}), dataset, trained)


def test_other_images(experiment: Experiment, trained: Path) -> None:
    words = f"{trained / 'digests.json'}: dataset: trained on other images than those of embedded"
    refused(experiment, tiny_dataset(test=24), trained, words, TRAIN)


@pytest.mark.parametrize(
    ("dotted", "words"),
    [
        ({"model.widths": [5, "P", 4]}, "features.0.conv.bias is (4,), expected (5,)"),
        ({"model.widths": [4, 4]}, "is missing"),
        ({"model.stabilize_threshold": False}, "neuron.running_threshold is unknown"),
    ],
)
def test_weights_of_another_network(
    measured: Path, dataset: Dataset, dotted: dict[str, object], words: str
) -> None:
    path = measured / "model.safetensors"
    with pytest.raises(UserError) as caught:
        measure_weights(tiny_experiment(**dotted), dataset, path, None, None)
    one_line(caught.value, f"{path}: weights of another network or damaged ones: ", words)


def changed_weights(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    """Change the first tensor whose name ends so."""

    def edit(path: Path) -> None:
        state = safetensors.torch.load_file(path)
        key = next(key for key in state if key.endswith(name))
        safetensors.torch.save_file({**state, key: change(state[key]).contiguous()}, path)

    return edit


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (changed_weights("conv.weight", lambda t: t * math.nan), "conv.weight is not finite"),
        (changed_weights("running_mean", lambda t: t + math.inf), "running_mean is not finite"),
        (changed_weights("running_var", lambda t: -t - 1), "running_var is negative"),
        (changed_weights("conv.weight", Tensor.char), "conv.weight is int8, expected float32"),
        (changed_weights("bias", Tensor.double), "bias is float64, expected float32"),
        (changed_weights("fallbacks", Tensor.float), "fallbacks is float32, expected int64"),
        (
            changed_weights("running_threshold", lambda t: t.expand(3, len(t))),
            "running_threshold is (3, 4), expected (T,)",
        ),
        (
            lambda path: torch.save(safetensors.torch.load_file(path), path),
            "a checkpoint of PyTorch, expected a safetensors file: `steadyspike import-released`",
        ),
    ],
)
def test_weights_that_no_training_leaves(
    measured: Path,
    dataset: Dataset,
    tmp_path: Path,
    damage: Callable[[Path], None],
    words: str,
) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(measured / "model.safetensors", path)
    damage(path)
    with pytest.raises(UserError) as caught:
        measure_weights(tiny_experiment(), dataset, path, "fixed", None)
    one_line(caught.value, f"{path}: ", words)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_weights_under_a_wrappers_prefix(
    measured: Path, dataset: Dataset, tmp_path: Path, prefix: str
) -> None:
    own, path = measured / "model.safetensors", tmp_path / "wrapped.safetensors"
    state = safetensors.torch.load_file(own)
    safetensors.torch.save_file({prefix + name: value for name, value in state.items()}, path)
    ours, theirs = (
        measure_weights(tiny_experiment(), dataset, place, None, None) for place in (own, path)
    )
    assert ours == theirs
