"""Our own training step, as `steadyspike train` runs it."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from steadyspike import kernels
from steadyspike.bench.setting import Setting
from steadyspike.bench.work import (
    LEARNING_RATE,
    MOMENTUM,
    MSE_WEIGHT,
    WEIGHT_DECAY,
    Variants,
    Work,
    autocast,
    batch_in_memory,
    loss_of,
)
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment
from steadyspike.train.graph import WARM_UP, CudaRecorder, Replayed
from steadyspike.train.trainer import Trainer


def online(setting: Setting) -> Variants:
    """The method: gradients within a step, K steps a call."""
    kernels_here = kernels_in_use(setting.device)
    variants: Variants = {kernels_here: partial(_work, setting, True)}
    if setting.device == "cuda":
        variants[f"{kernels_here}, CUDA graph"] = partial(_recorded, setting)
    return variants


def through_time(setting: Setting) -> Variants:
    """BPTT with the framework's batch normalization, all T steps in one call."""
    return {"plain torch": partial(_work, setting, False)}


def _work(setting: Setting, is_online: bool) -> Work:
    trainer = Trainer(experiment_of(setting, online=is_online), one_batch(setting))
    model = trainer.model.train()
    frames, labels = batch_in_memory(setting)
    clip = frames.expand(setting.steps, *frames.shape)  # (T, N, C, H, W)

    def losses() -> Iterator[Tensor]:
        with sequence(model, steps=setting.steps, still=True):
            for chunk in clip.split(setting.chunk):  # (K, N, C, H, W)
                with autocast(setting):
                    loss = loss_of(setting, model(chunk), labels)
                yield loss

    return Work(model, trainer.optimizer, losses)


def _recorded(setting: Setting) -> Work:
    """The same, its presentation replayed as ``training.cuda_graph`` does it."""
    eager = _work(setting, True)
    frames, labels = batch_in_memory(setting)
    clip = frames.expand(setting.steps, *frames.shape)

    def present(clip: Tensor, labels: Tensor) -> Tensor:
        eager.optimizer.zero_grad(set_to_none=True)
        for loss in eager.losses():
            loss.backward()
        return torch.zeros(2)

    replayed = Replayed(present, list(eager.model.parameters()), CudaRecorder())
    for _ in range(WARM_UP + 1):
        replayed(clip, labels)

    def losses() -> Iterator[Tensor]:
        replayed(clip, labels)  # the backward passes too
        yield from ()

    return Work(eager.model, eager.optimizer, losses, eager)


def experiment_of(setting: Setting, *, online: bool = True) -> Experiment:
    """The setting as an experiment: what `steadyspike train` would be told in params.yaml."""
    model: dict[str, Any] = {
        "name": setting.model,
        "norm": setting.norm if online else "batch",
        "stabilize_threshold": setting.stabilize_threshold and online,
        "online": online,
        "reset": "subtract",
        "tau": 2.0,
        "v_threshold": 1.0,
        "surrogate_slope": 4.0,
        "dropout": 0.0,
        "inference_threshold": "live",
        "fallback_ratio": 20.0,
    }
    if setting.widths is not None:
        model["widths"] = list(setting.widths)
    return Experiment.model_validate(
        {
            "name": "bench",
            "seeds": [0],
            "device": setting.device,
            "dataset": {"name": "embedded", "augmentation": "none"},
            "model": model,
            "training": {
                "epochs": 1,
                "batch": setting.batch,
                "steps": setting.steps,
                "chunk": setting.chunk,
                "learning_rate": LEARNING_RATE,
                "momentum": MOMENTUM,
                "weight_decay": WEIGHT_DECAY,
                "mse_weight": MSE_WEIGHT,
                "precision": setting.precision,
            },
            "evaluation": {"batch": setting.batch, "steps": setting.steps},
        }
    )


def one_batch(setting: Setting) -> Dataset:
    """A data set of as many black images as a batch has: it only tells the Trainer their shape."""
    split = Split(
        torch.zeros((setting.batch, *setting.image), dtype=torch.uint8),
        torch.zeros(setting.batch, dtype=torch.int64),
    )
    channels = setting.image[0]
    classes = tuple(str(number) for number in range(setting.classes))
    return Dataset("bench", classes, (0.5,) * channels, (0.25,) * channels, split, split)


def kernels_in_use(device: str) -> str:
    """Which kernels a float32 layer on this device runs on: a backend's name, or plain torch."""
    backend = kernels.backend(torch.zeros(1, device=device))
    return (
        "plain torch"
        if backend is kernels.reference
        else f"{backend.__name__.rpartition('.')[2]} kernels"
    )
