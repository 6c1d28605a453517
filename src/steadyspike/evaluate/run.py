"""What evaluation leaves in ``runs/<experiment>/``."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from steadyspike import kernels
from steadyspike.data import Dataset
from steadyspike.data.collate import training_clip
from steadyspike.data.loading import batches
from steadyspike.errors import UserError
from steadyspike.evaluate.membranes import Membranes
from steadyspike.evaluate.memory import kept_for_backward
from steadyspike.evaluate.operations import Operations
from steadyspike.evaluate.provenance import check_weights, measured_by, provenance_of
from steadyspike.evaluate.rates import FiringRates
from steadyspike.evaluate.weights import load_weights
from steadyspike.files import write_atomically
from steadyspike.snn.neuron import LIF
from steadyspike.train.accuracy import Presentation, Score, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.digest import weights_sha256
from steadyspike.train.history import best_row, read_history
from steadyspike.train.network import build_model
from steadyspike.train.run import run_folders

MEMORY_STEPS = (2, 4, 6, 8, 10, 15, 20, 25, 30)  # T of Figure 2a


def evaluate_run(experiment: Experiment, dataset: Dataset, folder: Path) -> None:
    """Measure the last weights of a finished run, of every seed, on the test split.

    Writes ``metrics.json`` and ``membranes.json``. All but the accuracies of other seeds is of
    the first one.

    Raises:
        UserError: the run has not finished, its files are damaged, or it was trained with other
            parameters than ``experiment`` has or on other data than ``dataset``.
    """
    remedy = f"train it first, `steadyspike train {experiment.name}`"
    how = Presentation.of(experiment)
    runs = run_folders(experiment, folder)
    provenance = provenance_of(experiment, runs, dataset)
    seeds = {}
    for run, run_folder in reversed(runs):  # the first seed comes last
        history = read_history(run_folder / "history.csv", remedy)
        model = build_model(run, dataset)
        load_weights(run_folder / "model.safetensors", model.eval(), remedy)
        weights = weights_sha256(model.state_dict())
        check_weights(run, run_folder, weights)
        rates, membranes = FiringRates(model, how.steps), Membranes(model, how.steps)
        operations = Operations(model, how.steps)
        # As training scored it, and once more in plain torch, layer by layer, to look inside.
        score = evaluate(model, dataset, how)
        with (
            kernels.disabled(),
            rates.counted(),
            membranes.observed(),
            operations.counted(len(dataset.test)),
        ):
            evaluate(model, dataset, replace(how, still=False))
        best = best_row(history)
        seeds[run.seed] = {
            "last": round(score.accuracy, 4),
            "best": round(best.test_accuracy, 4),
            "best_epoch": best.epoch,
            "weights_sha256": weights,
        }
    first = dict(seeds[experiment.seed])
    metrics = {
        "experiment": experiment.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights_sha256": first.pop("weights_sha256"),
        "accuracy": first,
        "loss": {"train": history[-1].train_loss, "test": float(f"{score.loss:.6g}")},
        "firing_rate": {
            "gross": round(rates.gross(), 6),
            "per_step": _rounded(rates.per_step()),
            "per_layer": {name: _rounded(layer) for name, layer in rates.per_layer().items()},
        },
        "operations": {key: round(count, 2) for key, count in operations.summary().items()},
        "inference": _inference(model, dataset, how, experiment.model.inference_threshold, score),
        "osr_fallbacks": sum(row.osr_fallbacks for row in history),
        "evaluation": measured_by(experiment),
        "provenance": provenance,
    }
    if len(seeds) > 1:
        metrics["seeds"] = {str(seed): seeds[seed] for seed in experiment.seeds}
    write_atomically(folder / "membranes.json", json.dumps(membranes.summary()) + "\n")
    write_atomically(folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")


def measure_weights(
    experiment: Experiment,
    dataset: Dataset,
    weights: Path,
    threshold: Literal["live", "fixed"] | None,
    batch: int | None,
) -> Score:
    """The score of a weights file, with another source of the thresholds or another batch size."""
    model = build_model(experiment, dataset)
    load_weights(weights, model, f"train it first, `steadyspike train {experiment.name}`")
    if threshold is not None and not set_inference_threshold(model, threshold):
        raise UserError(
            f"{experiment.name}: --threshold {threshold}: expected an experiment with OTS "
            "(model.stabilize_threshold: true)"
        )
    how = Presentation.of(experiment)
    return evaluate(model, dataset, replace(how, batch=batch or how.batch))


def _inference(
    model: nn.Module,
    dataset: Dataset,
    how: Presentation,
    threshold: Literal["live", "fixed"],
    score: Score,
) -> dict[str, float]:
    """Accuracy by where OTS's thresholds come from at inference (Appendix E).

    ``live``: the batch at hand; ``fixed``: learned running values; ``batch_1``: the sample alone.
    Without OTS all three are the same network, so only the first is measured. ``score`` is
    known already, of the model's own ``threshold``.
    """
    if not set_inference_threshold(model, "live"):
        return {"live": round(score.accuracy, 4)}
    live = score if threshold == "live" else evaluate(model, dataset, how)
    alone = evaluate(model, dataset, replace(how, batch=1))
    set_inference_threshold(model, "fixed")
    fixed = score if threshold == "fixed" else evaluate(model, dataset, how)
    set_inference_threshold(model, threshold)
    measured = {"live": live, "fixed": fixed, "batch_1": alone}
    return {name: round(each.accuracy, 4) for name, each in measured.items()}


def set_inference_threshold(model: nn.Module, threshold: Literal["live", "fixed"]) -> bool:
    """Where every LIF layer's threshold comes from at inference; whether any layer has OTS."""
    stabilized = [
        module
        for module in model.modules()
        if isinstance(module, LIF) and module.stabilize_threshold
    ]
    for layer in stabilized:
        layer.inference_threshold = threshold
    return bool(stabilized)


def measure_memory(experiments: dict[str, Experiment], dataset: Dataset, path: Path) -> None:
    """Write a CSV of the bytes autograd keeps, by method and T (Figure 2a).

    Args:
        experiments: ``online`` and ``bptt`` to the experiment that stands for each. Online
            training takes one step a call, BPTT all of them.
        dataset: its first training samples are shown, one frame of each at every step.
        path: columns method, steps, bytes.
    """
    lines = ["method,steps,bytes"]
    for method, experiment in experiments.items():
        batch = experiment.training.batch
        first = torch.arange(min(batch, len(dataset.train)))
        indices, samples, labels = next(batches(dataset.train, first, batch, seed=0, epoch=0))
        frame = training_clip(
            samples.to(experiment.device),
            indices,
            dataset,
            augmentation=experiment.dataset.augmentation,
            steps=1,
            seed=experiment.seed,
            epoch=0,
            batch=0,
        )[0]
        for steps in MEMORY_STEPS:
            kept = kept_for_backward(
                build_model(experiment, dataset).train(),
                frame,
                labels.to(experiment.device),
                steps=steps,
                chunk=1 if experiment.model.online else steps,
            )
            lines.append(f"{method},{steps},{kept}")
    write_atomically(path, "\n".join(lines) + "\n")


def _rounded(values: list[float]) -> list[Any]:
    return [round(value, 6) for value in values]
