"""`steadyspike export`: a trained network in a form that other software reads."""

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from steadyspike import __version__
from steadyspike.console import notify
from steadyspike.data.collate import frame_shape
from steadyspike.deploy.fold import fold
from steadyspike.deploy.folded import Folded
from steadyspike.deploy.nir_file import write_nir
from steadyspike.deploy.step import write_onnx, write_program
from steadyspike.errors import UserError
from steadyspike.evaluate.run import ots_layers, set_inference_threshold
from steadyspike.evaluate.trained import open_network, without_samples
from steadyspike.snn.neuron import InferenceThreshold
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment

FORMS = (".nir", ".onnx", ".pt2")
FOLDED_NORMS = ("osr", "per_step", "linear", "batch", "tdbn")


def export(
    experiment: Experiment, folder: Path, out: Path, threshold: InferenceThreshold | None = None
) -> Folded:
    """Write the network of a finished run, of its first seed, to a file.

    The suffix of ``out`` chooses the form: ``.nir``, ``.onnx`` or ``.pt2`` (`torch.export`).
    ``threshold`` overrides the experiment's `model.inference_threshold`.

    Raises:
        UserError: another suffix; ``out`` exists; the run is unfinished or of other parameters;
            its norm cannot be folded; its thresholds change from step to step; the form has no
            place for the network, or its package is not installed. Nothing is written.
    """
    if out.suffix not in FORMS:
        raise UserError(f"--out: expected a name that ends in {', '.join(FORMS)}, got {out}")
    refuse_existing(out)
    if experiment.model.norm not in FOLDED_NORMS:
        raise UserError(
            f"{experiment.name}: model.norm: {experiment.model.norm} cannot be folded into weights,"
            f" expected one of {', '.join(FOLDED_NORMS)}"
        )
    model, seen = open_network(experiment.runs[0], folder)
    if threshold is not None:
        set_inference_threshold(model, threshold)
    _check_thresholds(experiment, model)
    folded = _fold_checked(experiment, model, frame_shape(without_samples(seen)))
    if out.suffix == ".nir":
        if experiment.model.name not in ("vggsnn", "resnet19"):
            raise UserError(
                f"{experiment.name}: model.name: expected vggsnn or resnet19, since NIR has no max "
                f"pooling; {experiment.model.name} can be exported as .onnx or .pt2"
            )
        write_nir(
            out,
            folded,
            steps=experiment.evaluation.steps,
            mean=seen.mean,
            std=seen.std,
            experiment=experiment.name,
            written_by=f"steadyspike {__version__}",
        )
    else:
        write: Callable[[Path, Folded], None] = (
            write_onnx if out.suffix == ".onnx" else write_program
        )
        write(out, folded)
    for note in _notes(experiment, out):
        notify(f"steadyspike: note: {note}")
    return folded


def _fold_checked(
    experiment: Experiment, model: nn.Module, input_shape: tuple[int, int, int]
) -> Folded:
    """The folded network, after both were given the same clip in float64."""
    dtype = next(model.parameters()).dtype
    exact = copy.deepcopy(model).cpu().double()
    try:
        folded = fold(exact, input_shape)
    except ValueError as error:
        raise UserError(f"{experiment.name}: model.{error}") from None
    generator = torch.Generator().manual_seed(0)
    steps = experiment.evaluation.steps
    clip = torch.randn(steps, 1, *input_shape, generator=generator, dtype=torch.float64)
    membranes = folded.membranes(1)
    with torch.no_grad(), sequence(exact, steps=steps):
        for frame, expected in zip(clip, exact(clip), strict=True):
            logits, *membranes = folded(frame, *membranes)
            if not torch.allclose(logits, expected, rtol=1e-6, atol=1e-6):
                raise UserError(
                    f"{experiment.name}: model: this network cannot be folded: folded it gives "
                    "other logits"
                )
    return folded.to(dtype)


def refuse_existing(path: Path) -> None:
    """UserError if there is a file or folder of this name."""
    if path.exists() or path.is_symlink():
        raise UserError(f"{path}: exists already: remove it or choose another name")


def _check_thresholds(experiment: Experiment, model: nn.Module) -> None:
    for layer in ots_layers(model):
        if layer.inference_threshold != "layer":
            name = experiment.name
            raise UserError(
                f"{name}: model.inference_threshold: {layer.inference_threshold} thresholds "
                "change from step to step, expected one a layer: export with --threshold layer "
                f"(its accuracy: steadyspike evaluate {name} --threshold layer)"
            )


def _notes(experiment: Experiment, out: Path) -> list[str]:
    """What a reader of the file should know."""
    model, notes = experiment.model, []
    if model.norm in ("per_step", "batch", "tdbn"):
        own = "the batch's statistics" if model.norm == "tdbn" else "each step's own statistics"
        notes.append(
            f"{experiment.name}: model.norm: {model.norm} trains with {own}; "
            "the running ones are folded in, as evaluation uses"
        )
    if model.dropout or model.options.get("head") == "gesture":
        notes.append(f"{experiment.name}: dropout is left out: only training has it")
    if out.suffix == ".nir" and model.reset == "subtract":
        notes.append(
            f"{out}: NIR has no reset by subtraction, the metadata names it: load the file with "
            "steadyspike.deploy.simulators"
        )
    return notes
