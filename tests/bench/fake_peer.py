"""Frameworks for tests; a worker's process imports them by name."""

import os
import signal
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from steadyspike.bench.frameworks import Framework
from steadyspike.bench.records import Setting
from steadyspike.bench.training_step import (
    CLASSES,
    TrainingStep,
    Variants,
    batch_in_memory,
    loss_of,
    optimizer_for,
)


def fake(function: str) -> Framework:
    return Framework(f"fake-{function}", "Fake", f"bench.fake_peer:{function}", package="json")


def quick(setting: Setting) -> Variants:
    """One convolution and a linear layer."""
    print("a library prints what it likes")
    return {"quick": lambda: _step(setting)}


def uneven(setting: Setting) -> Variants:
    """Three variants: a slow one, one that this machine lacks, a fast one."""

    def slow() -> TrainingStep:
        step = _step(setting)

        def losses() -> Iterator[Tensor]:
            for _ in range(30):
                torch.randn(200, 200) @ torch.randn(200, 200)
            yield from step.losses()

        return TrainingStep(step.model, step.optimizer, losses)

    def absent() -> TrainingStep:
        raise ImportError("no such kernels here")

    return {"slow": slow, "absent": absent, "fast": lambda: _step(setting)}


def recorded(setting: Setting) -> Variants:
    """A step that hides its parts, as a CUDA graph does."""

    def make() -> TrainingStep:
        eager = _step(setting)

        def losses() -> Iterator[Tensor]:
            for loss in eager.losses():
                loss.backward()
            yield from ()

        return TrainingStep(eager.model, eager.optimizer, losses, eager=eager)

    return {"recorded": make}


def broken(setting: Setting) -> Variants:
    raise RuntimeError(f"no kernels for batch {setting.batch}\nand more")


def killed(setting: Setting) -> Variants:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def _step(setting: Setting) -> TrainingStep:
    frames, labels = batch_in_memory(setting)
    channels, height, width = setting.image
    model = nn.Sequential(
        nn.Conv2d(channels, 2, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(2 * height * width, CLASSES),
    )

    def losses() -> Iterator[Tensor]:
        for _ in range(setting.steps):
            yield loss_of(setting, model(frames)[None], labels)

    return TrainingStep(model, optimizer_for(model), losses)
