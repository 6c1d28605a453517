"""The network of an experiment, on its device and in its precision."""

import torch
from torch import nn

from steadyspike.data import Dataset
from steadyspike.data.collate import frame_shape
from steadyspike.data.counter_rng import derive_seed
from steadyspike.errors import UserError
from steadyspike.models import build, option_names
from steadyspike.pins import cpu_flags
from steadyspike.train.config import Experiment


def check_device(experiment: Experiment) -> None:
    """UserError if this machine lacks the experiment's device."""
    if experiment.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{experiment.name}: device: torch finds no GPU here, expected cpu")


def slow_precision(experiment: Experiment) -> str | None:
    """A note if this processor computes in the experiment's precision by emulation."""
    if (experiment.device, experiment.training.precision) != ("cpu", "bfloat16"):
        return None
    if "avx512_bf16" in cpu_flags():
        return None
    return (
        f"{experiment.name}: training.precision: this processor has no AVX512_BF16, so bfloat16 is"
        " about ten times slower than float32"
    )


def build_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """The network of an experiment with its initial weights, on the experiment's device.

    Raises:
        UserError: this machine lacks the device, the network's options contradict each other, or
            the images are too small for it.
    """
    check_device(experiment)
    name = experiment.name
    options = experiment.model.options
    channels, height, width = frame_shape(dataset)
    poolings = options.get("widths", []).count("P")
    if min(height, width) >> poolings == 0:
        raise UserError(
            f"{name}: model.widths: at most {min(height, width).bit_length() - 1} 'P' "
            f"for images of {height}x{width}, got {poolings}"
        )
    if "image_size" in option_names(experiment.model.name):
        options["image_size"] = height
    options["steps"] = experiment.training.steps
    torch.manual_seed(derive_seed(experiment.seed, "init"))
    try:
        model = build(
            experiment.model.name,
            in_channels=channels,
            num_classes=dataset.num_classes,
            **options,
        )
    except ValueError as error:
        raise UserError(f"{name}: model.{error}") from None
    precision = experiment.training.precision
    if precision == "float64":
        model.double()
    # With bfloat16 too, for what autocast leaves in float32: the first layer, and the evaluations,
    # which would otherwise take a third of an epoch.
    tf32 = precision in ("tf32", "bfloat16")
    torch.backends.cudnn.allow_tf32 = tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    # Channels last: convolutions need no reordering of their inputs.
    return model.to(memory_format=torch.channels_last).to(experiment.device)
