"""`steadyspike predict`: what a finished run says of image files, after each time step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from steadyspike import data, kernels
from steadyspike.data import Dataset
from steadyspike.data.collate import evaluation_clip
from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Operations, Prediction, StepPrediction, TrainedOn
from steadyspike.evaluate.operations import OperationCounter
from steadyspike.evaluate.run import (
    lacks_learned_thresholds,
    ots_layers,
    set_inference_threshold,
)
from steadyspike.evaluate.trained import open_network, without_samples
from steadyspike.snn.neuron import InferenceThreshold
from steadyspike.snn.sequence import sequence
from steadyspike.train.accuracy import Presentation, present_batch
from steadyspike.train.config import Experiment

SHOWN = 3  # classes a line


def predict(experiment: Experiment, folder: Path, images: Sequence[Path]) -> list[Prediction]:
    """What the first seed's network says of each image, shown alone, read as for evaluation.

    OTS's live thresholds depend on all images that are shown together. Thresholds are therefore
    those learned in training, unless the weights hold none.

    Raises:
        UserError: the run has not finished or is damaged, an image cannot be read, or the data
            set holds no images.
    """
    model, seen = open_network(experiment, folder)
    dataset = without_samples(seen)
    if len(seen.shape) != 3:
        raise UserError(f"{experiment.name}: {seen.name} holds clips of events, expected images")
    pictures = [_read(seen, path) for path in images]
    threshold = choose_threshold(model)
    how = Presentation.of(experiment)
    predictions = []
    with torch.no_grad():
        for path, picture in zip(images, pictures, strict=True):
            logits = present_batch(model, dataset, how, picture)[:, 0]  # (T, classes)
            steps = [
                StepPrediction(
                    step=step,
                    confidence=_confidence(logits[:step].double().mean(0), seen.classes),
                    operations=operations,
                )
                for step, operations in enumerate(_operations(model, dataset, how, picture), 1)
            ]
            best = next(iter(steps[-1].confidence))
            predictions.append(
                Prediction(image=str(path), label=best, threshold=threshold, steps=steps)
            )
    return predictions


def choose_threshold(model: nn.Module) -> InferenceThreshold | Literal["constant"]:
    """Make OTS take learned thresholds in place of live ones, if there are any; names them."""
    layers = ots_layers(model)
    if not layers:
        return "constant"
    if layers[0].inference_threshold == "live":
        set_inference_threshold(model, "fixed")
        if lacks_learned_thresholds(model):
            set_inference_threshold(model, "live")
    return layers[0].inference_threshold


def text(predictions: Sequence[Prediction]) -> list[str]:
    """Predictions as lines for a terminal."""
    lines = []
    for prediction in predictions:
        lines.append(f"{prediction.image}: {prediction.label}")
        for step in prediction.steps:
            best = list(step.confidence.items())[:SHOWN]
            shown = ", ".join(f"{name} {100 * share:.1f} %" for name, share in best)
            operations = step.operations.synaptic_operations
            lines.append(f"  step {step.step}  {shown}  ({operations:,.0f} synaptic operations)")
    match predictions[0].threshold:
        case "live":
            lines.append("Thresholds are live, from each image alone; evaluation used its batch's.")
        case "fixed" | "layer":
            lines.append("Thresholds are those learned in training, not those of a batch.")
    return lines


def _read(seen: TrainedOn, path: Path) -> Tensor:
    """An image file as uint8 (1, C, H, W)."""
    channels, height, width = seen.shape
    pixels = np.array(data.read_image(seen.name, path, (channels, height, width)))
    return torch.from_numpy(pixels).reshape(1, height, width, channels).permute(0, 3, 1, 2)


def _confidence(logits: Tensor, classes: Sequence[str]) -> dict[str, float]:
    """Softmax of the mean of the logits so far (classes,): the share of each class, best first."""
    shares = logits.softmax(0)
    order = shares.argsort(descending=True, stable=True).tolist()
    return {classes[place]: round(float(shares[place]), 6) for place in order}


def _operations(
    model: nn.Module, dataset: Dataset, how: Presentation, picture: Tensor
) -> list[Operations]:
    """Operations up to each of the T steps."""
    parameter = next(model.parameters())
    clip = evaluation_clip(
        picture.to(parameter.device), dataset, steps=how.steps, dtype=parameter.dtype
    )
    counter, after = OperationCounter(model, steps=1), []
    # As in `evaluate_run`: in plain torch, where each layer runs at every step
    with kernels.disabled(), counter.counting(), sequence(model, steps=how.steps):
        for step, frames in enumerate(clip.split(1), 1):
            model(frames)
            mean = dict(counter.total())  # of the steps so far
            dense = mean.pop("dense_multiply_accumulates")  # of one pass
            sums = {key: round(step * count, 2) for key, count in mean.items()}
            after.append(Operations(**sums, dense_multiply_accumulates=dense))
    return after
