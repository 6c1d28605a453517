"""The training step that every framework runs alike, and what it keeps for backward."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from steadyspike.bench.setting import Setting
from steadyspike.data.loading import to_frames
from steadyspike.data.seeds import derive_seed
from steadyspike.evaluate.memory import KeptBytes
from steadyspike.snn.loss import tet_loss

MSE_WEIGHT = 0.05
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4


@dataclass(frozen=True)
class Work:
    """One framework's training of a network.

    Args:
        model: in training mode.
        optimizer: of all its parameters.
        losses: one presentation: yields the loss of each forward pass, and goes on to the next
            once the caller has called backward.
        eager: the same work not recorded as a whole, for who wants to look into a step.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[[], Iterator[Tensor]]
    eager: "Work | None" = None


#: What a framework offers in a setting: each way to run it, by its name; the first runs anywhere.
Variants = dict[str, Callable[[], Work]]


def train_step(work: Work) -> None:
    """Forward, loss, backward, one step of the optimizer."""
    work.optimizer.zero_grad(set_to_none=True)
    for loss in work.losses():
        loss.backward()
    work.optimizer.step()


def kept_bytes(work: Work) -> int:
    """The most bytes that autograd keeps at any time of one presentation; gradients are added."""
    kept = KeptBytes(work.model)
    losses = work.losses()
    most = 0
    while True:
        with kept.counted():
            loss = next(losses, None)
        if loss is None:
            return most
        most = max(most, kept.total)
        loss.backward()


def batch_in_memory(setting: Setting) -> tuple[Tensor, Tensor]:
    """Still images (N, C, H, W), normalized, channels last, and labels (N,), on the device."""
    generator = torch.Generator().manual_seed(derive_seed(0, "bench"))
    shape = (setting.batch, *setting.image)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(setting.classes, (setting.batch,), generator=generator)
    channels = setting.image[0]
    frames = to_frames(images.to(setting.device), [0.5] * channels, [0.25] * channels)
    return frames.contiguous(memory_format=torch.channels_last), labels.to(setting.device)


def autocast(setting: Setting) -> AbstractContextManager[None]:
    """bfloat16 where the setting says so."""
    enabled = setting.precision == "bfloat16"
    return torch.autocast(setting.device, torch.bfloat16, enabled=enabled)


def loss_of(setting: Setting, logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5 of the steps in ``logits`` (K, N, classes), the same for every framework."""
    return tet_loss(logits, labels, steps=setting.steps, mse_weight=MSE_WEIGHT)


def optimizer_for(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of `steadyspike train`."""
    return torch.optim.SGD(
        model.parameters(),
        lr=LEARNING_RATE,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        fused=True,
    )
