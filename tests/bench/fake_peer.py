"""Contenders for tests: a worker imports them by this file's name."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from steadyspike.bench.setting import Setting
from steadyspike.bench.work import Variants, Work, batch_in_memory, loss_of, optimizer_for


def quick(setting: Setting) -> Variants:
    """One convolution and a linear layer; says so where a library should not."""
    print("a library prints what it likes")
    return {"quick": lambda: _work(setting)}


def uneven(setting: Setting) -> Variants:
    """Three ways: one that this machine has not, one that takes its time, one that does not."""

    def slow() -> Work:
        work = _work(setting)

        def losses() -> Iterator[Tensor]:
            for _ in range(30):
                torch.randn(200, 200) @ torch.randn(200, 200)
            yield from work.losses()

        return Work(work.model, work.optimizer, losses)

    def absent() -> Work:
        raise ImportError("no such kernels here")

    return {"slow": slow, "absent": absent, "fast": lambda: _work(setting)}


def broken(setting: Setting) -> Variants:
    """Cannot be built."""
    raise RuntimeError(f"no kernels for batch {setting.batch}")


def recorded(setting: Setting) -> Variants:
    """Does a step without showing its parts, as a CUDA graph does."""

    def make() -> Work:
        eager = _work(setting)

        def losses() -> Iterator[Tensor]:
            for loss in eager.losses():
                loss.backward()
            yield from ()

        return Work(eager.model, eager.optimizer, losses, eager)

    return {"recorded": make}


def _work(setting: Setting) -> Work:
    frames, labels = batch_in_memory(setting)
    channels, height, width = setting.image
    model = nn.Sequential(
        nn.Conv2d(channels, 2, 3, padding=1, bias=False),
        nn.Flatten(),
        nn.Linear(2 * height * width, setting.classes),
    )

    def losses() -> Iterator[Tensor]:
        for _ in range(setting.steps):
            yield loss_of(setting, model(frames)[None], labels)

    return Work(model, optimizer_for(model), losses)
