"""The network that an experiment trains, as its device and precision want it."""

import torch
from torch import nn

from steadyspike.data import Dataset
from steadyspike.data.collate import frame_shape
from steadyspike.data.counter_rng import derive_seed
from steadyspike.errors import UserError
from steadyspike.models import build, option_names
from steadyspike.models.blocks import StepDropout
from steadyspike.train.config import Experiment
from steadyspike.train.distributed import Ranks


def check_device(experiment: Experiment) -> None:
    """Whether this machine has the experiment's device; UserError if not."""
    if experiment.device == "cuda" and not torch.cuda.is_available():
        raise UserError(f"{experiment.name}: device: torch finds no GPU here, expected cpu")


def build_model(experiment: Experiment, dataset: Dataset) -> nn.Module:
    """The network of an experiment with its initial weights, on the experiment's device.

    Raises:
        UserError: this machine has no such device, the options contradict each other, or the
            images are too small for the network.
    """
    check_device(experiment)
    torch.manual_seed(derive_seed(experiment.seed, "init"))
    options = experiment.model.options
    channels, height, width = frame_shape(dataset)
    poolings = options.get("widths", []).count("P")
    if min(height, width) >> poolings == 0:
        raise UserError(
            f"{experiment.name}: model.widths: at most {min(height, width).bit_length() - 1} 'P' "
            f"for images of {height}x{width}, got {poolings}"
        )
    if "image_size" in option_names(experiment.model.name):
        options["image_size"] = height
    try:
        model = build(
            experiment.model.name,
            in_channels=channels,
            num_classes=dataset.num_classes,
            **options,
        )
    except ValueError as error:
        raise UserError(f"{experiment.name}: model.{error}") from None
    precision = experiment.training.precision
    if precision == "float64":
        model.double()
    # Set explicitly: the experiment decides, not torch's defaults.
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    # Channels last: convolutions need no reordering of their inputs.
    return model.to(memory_format=torch.channels_last).to(experiment.device)


def check_recordable(experiment: Experiment, model: nn.Module, ranks: Ranks) -> None:
    """Whether a batch can be recorded as a CUDA graph; UserError if not."""
    key = f"{experiment.name}: training.cuda_graph"
    if not ranks.alone:
        raise UserError(f"{key}: expected false with several processes, which exchange sums")
    if any(isinstance(m, StepDropout) and m.probability > 0 for m in model.modules()):
        raise UserError(
            f"{key}: expected false for a network whose head draws a seed for each batch"
        )
