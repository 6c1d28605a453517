"""`steadyspike evaluate`: measures the weights of a finished run on the test split."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

from torch import nn

from steadyspike import kernels
from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.evaluate.layers import LayerRecorder, pooled
from steadyspike.evaluate.metrics import (
    Accuracy,
    AfterSteps,
    Digests,
    Evaluation,
    Inference,
    Layers,
    Loss,
    Measurement,
    Metrics,
    Operations,
    StepAccuracy,
    mean_over_seeds,
    write_layers,
    write_metrics,
)
from steadyspike.evaluate.operations import OperationCounter
from steadyspike.evaluate.weights import load_recorded, load_weights
from steadyspike.records import read_record
from steadyspike.snn.neuron import LIF, InferenceThreshold
from steadyspike.train.accuracy import Presentation, Score, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.history import EpochRow, best_row, read_history
from steadyspike.train.network import build_model
from steadyspike.train.run import run_folders


def evaluate_run(experiment: Experiment, dataset: Dataset, folder: Path) -> None:
    """Measure the last weights of a finished run and write ``metrics.json`` and ``layers.json``.

    Every seed is measured alike; what belongs to all of them is their mean, histograms their sum.

    Raises:
        UserError: the run has not finished, its files are damaged, or its weights are not those
            that training with the parameters of ``experiment`` left.
    """
    runs = [load_run(run, dataset, place) for run, place in run_folders(experiment, folder)]
    measured = [_measure(experiment, dataset, *run) for run in runs]
    measurements = [measurement for measurement, _ in measured]
    mean = mean_over_seeds(measurements)
    seeds = zip(map(str, experiment.seeds), measurements, strict=True)
    metrics = Metrics(
        experiment=experiment.name,
        parameters=sum(parameter.numel() for parameter in runs[0][0].parameters()),
        evaluation=Evaluation.of(experiment, len(dataset.test)),
        seeds=dict(seeds) if len(runs) > 1 else None,
        **{key: getattr(mean, key) for key in Measurement.model_fields},
    )
    write_layers(folder / "layers.json", pooled([layers for _, layers in measured]))
    write_metrics(folder / "metrics.json", metrics)


def _measure(
    experiment: Experiment, dataset: Dataset, model: nn.Module, history: list[EpochRow]
) -> tuple[Measurement, Layers]:
    """The measurements of one seed's network, in evaluation mode."""
    how = Presentation.of(experiment)
    score = evaluate(model, dataset, how)
    as_trained = evaluate(model, dataset, replace(how, statistics="batch"))
    recorder, counter = LayerRecorder(model, how.steps), OperationCounter(model, how.steps)
    # In plain torch, where each layer is a module of its own that runs at every step
    with kernels.disabled(), recorder.recording(), counter.counting():
        evaluate(model, dataset, replace(how, still=False))
    measurement = Measurement(
        accuracy=_accuracy(score, history),
        after_steps=AfterSteps(inference=_after_steps(score), batch=_after_steps(as_trained)),
        loss=Loss(train=history[-1].train_loss, test=float(f"{score.loss:.6g}")),
        firing_rate=recorder.firing_rate(),
        operations=Operations(**{key: round(count, 2) for key, count in counter.total()}),
        inference=_inference(model, dataset, how, experiment.model.inference_threshold, score),
        osr_fallbacks=sum(row.osr_fallbacks for row in history),
    )
    return measurement, recorder.layers()


def measure_weights(
    experiment: Experiment,
    dataset: Dataset,
    weights: Path,
    threshold: InferenceThreshold | None,
    batch: int | None,
) -> Score:
    """The score of a weights file; ``threshold`` and ``batch`` override the experiment's.

    Raises:
        UserError: the file is missing, damaged or of another network; a threshold is chosen for a
            network without OTS, or learned ones are needed and the file holds none.
    """
    model = build_model(experiment, dataset)
    load_weights(weights, model, _remedy(experiment))
    return measure_network(experiment, model, dataset, weights, threshold, batch)


def measure_network(
    experiment: Experiment,
    model: nn.Module,
    dataset: Dataset,
    weights: Path,
    threshold: InferenceThreshold | None,
    batch: int | None,
) -> Score:
    """As `measure_weights`, of a network that has the weights of that file."""
    if threshold is not None and not set_inference_threshold(model, threshold):
        raise UserError(
            f"{experiment.name}: --threshold {threshold}: expected an experiment with OTS "
            "(model.stabilize_threshold: true)"
        )
    if lacks_learned_thresholds(model):
        raise UserError(
            f"{weights}: holds no thresholds learned in training: measure it with --threshold live"
        )
    how = Presentation.of(experiment)
    return evaluate(model, dataset, replace(how, batch=batch or how.batch))


def set_inference_threshold(model: nn.Module, threshold: InferenceThreshold) -> bool:
    """Set the source of thresholds in every layer with OTS; False if there is no such layer."""
    layers = ots_layers(model)
    for layer in layers:
        layer.inference_threshold = threshold
    return bool(layers)


def lacks_learned_thresholds(model: nn.Module) -> bool:
    """Whether a layer infers with learned thresholds and has none."""
    return any(
        layer.inference_threshold != "live" and len(layer.running_threshold) == 0
        for layer in ots_layers(model)
    )


def ots_layers(model: nn.Module) -> list[LIF]:
    """The layers of neurons whose thresholds OTS sets."""
    return [m for m in model.modules() if isinstance(m, LIF) and m.stabilize_threshold]


def load_run(run: Experiment, dataset: Dataset, folder: Path) -> tuple[nn.Module, list[EpochRow]]:
    """The trained network of one seed, in evaluation mode, and its history.

    Raises:
        UserError: as `evaluate_run`, and for other images than it was trained on.
    """
    digests = read_digests(run, folder)
    seen = digests.dataset
    if seen is not None and seen.content_sha256 != dataset.content_sha256():
        raise UserError(
            f"{folder / 'digests.json'}: dataset: trained on other images than those of "
            f"{dataset.name} now: {_remedy(run)}"
        )
    history = read_history(folder / "history.csv", _remedy(run))
    return load_network(run, dataset, folder, digests), history


def read_digests(run: Experiment, folder: Path) -> Digests:
    """``digests.json``; UserError if it is not that of a finished run with these parameters."""
    digests = read_record(folder / "digests.json", Digests, _remedy(run))
    if digests.fingerprint != run.fingerprint():
        raise UserError(
            f"{folder / 'digests.json'}: fingerprint: trained with other parameters than "
            f"{run.name} has now: {_remedy(run)}"
        )
    return digests


def read_measurement(run: Experiment, folder: Path) -> tuple[Metrics, Measurement]:
    """``metrics.json`` and in it what was measured of one seed.

    Raises:
        UserError: the file is missing or damaged, or of other weights than were trained last.
    """
    path, remedy = folder / "metrics.json", f"measure it with `steadyspike evaluate {run.name}`"
    metrics = read_record(path, Metrics, remedy)
    measured = metrics.by_seed(run.seed).get(str(run.seed))
    trained = read_history(folder / "history.csv", _remedy(run))[-1]
    if measured is None or measured.loss.train != trained.train_loss:
        raise UserError(f"{path}: of other weights than were trained last: {remedy}")
    return metrics, measured


def load_network(run: Experiment, dataset: Dataset, folder: Path, digests: Digests) -> nn.Module:
    """The last weights in evaluation mode; UserError if ``digests`` are not theirs."""
    model = build_model(run, dataset).eval()
    weights = folder / "model.safetensors"
    load_recorded(weights, model, digests.weights_sha256, "digests.json", _remedy(run))
    return model


def _remedy(experiment: Experiment) -> str:
    return f"train it with `steadyspike train {experiment.name}`"


def _accuracy(score: Score, history: list[EpochRow]) -> Accuracy:
    best = best_row(history)
    return Accuracy(
        last=round(score.accuracy, 4), best=round(best.test_accuracy, 4), best_epoch=best.epoch
    )


def _after_steps(score: Score) -> StepAccuracy:
    return StepAccuracy(
        step_accuracy=[round(accuracy, 4) for accuracy in score.step_accuracy],
        votes_accuracy=[round(accuracy, 4) for accuracy in score.votes_accuracy],
    )


def _inference(
    model: nn.Module,
    dataset: Dataset,
    how: Presentation,
    own: InferenceThreshold,
    score: Score,
) -> Inference:
    """Accuracy by the source of OTS's thresholds; ``score`` is known, with the model's ``own``."""
    if not set_inference_threshold(model, "live"):
        return Inference(live=round(score.accuracy, 4))
    alone = evaluate(model, dataset, replace(how, batch=1))
    scores = {own: score}
    for threshold in get_args(InferenceThreshold):
        if threshold != own:
            set_inference_threshold(model, threshold)
            scores[threshold] = evaluate(model, dataset, how)
    set_inference_threshold(model, own)
    accuracies = {threshold: round(scores[threshold].accuracy, 4) for threshold in scores}
    return Inference(**accuracies, batch_1=round(alone.accuracy, 4))
