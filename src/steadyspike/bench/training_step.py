"""One training step, the same for every framework, and our own."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from steadyspike import kernels
from steadyspike.bench.records import Setting
from steadyspike.data import Dataset
from steadyspike.data.counter_rng import derive_seed
from steadyspike.data.dataset import Split
from steadyspike.data.loading import to_frames
from steadyspike.evaluate.memory import KeptBytes
from steadyspike.snn.loss import tet_loss
from steadyspike.snn.sequence import sequence
from steadyspike.train.config import Experiment
from steadyspike.train.graph import WARM_UP, CudaRecorder, Recorder
from steadyspike.train.trainer import Trainer

CLASSES = 10
MSE_WEIGHT = 0.05
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4


@dataclass(frozen=True)
class TrainingStep:
    """One framework's training of a network on a batch in memory.

    Args:
        model: in training mode.
        optimizer: of all its parameters.
        losses: starts one batch; yields the loss of each forward pass and continues once the
            caller has called backward.
        layout: memory format of the convolutions' weights and inputs.
        eager: the same step outside the CUDA graph, whose parts can be looked at.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    losses: Callable[[], Iterator[Tensor]]
    layout: torch.memory_format = torch.channels_last
    eager: "TrainingStep | None" = None

    def run(self) -> None:
        """Forward passes, losses, backward passes, one step of the optimizer."""
        self.passes()
        self.optimizer.step()

    def passes(self) -> None:
        """All but the step of the optimizer: new gradients in place of the last ones."""
        self.optimizer.zero_grad(set_to_none=True)
        for loss in self.losses():
            loss.backward()

    def kept_bytes(self) -> int:
        """The most bytes that autograd keeps for backward during one batch; adds gradients."""
        kept = KeptBytes(self.model)
        losses = self.losses()
        most = 0
        while True:
            with kept.counted():
                loss = next(losses, None)
            if loss is None:
                return most
            most = max(most, kept.total)
            loss.backward()


#: The ways in which a framework can run a setting, by name; the first one runs on any machine.
Variants = dict[str, Callable[[], TrainingStep]]


def batch_in_memory(setting: Setting) -> tuple[Tensor, Tensor]:
    """Still images (N, C, H, W), normalized, channels last, and labels (N,), on the device."""
    generator = torch.Generator().manual_seed(derive_seed(0, "bench"))
    shape = (setting.batch, *setting.image)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(CLASSES, (setting.batch,), generator=generator)
    channels = setting.image[0]
    frames = to_frames(images.to(setting.device), [0.5] * channels, [0.25] * channels)
    return frames.contiguous(memory_format=torch.channels_last), labels.to(setting.device)


def autocast(setting: Setting) -> AbstractContextManager[None]:
    enabled = setting.precision == "bfloat16"
    return torch.autocast(setting.device, torch.bfloat16, enabled=enabled)


def loss_of(setting: Setting, logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 5 for the steps in ``logits`` (K, N, classes)."""
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


def online(setting: Setting, **model: Any) -> Variants:
    """The paper's method, OSR and OTS, K steps per call; on a GPU also as a CUDA graph.

    ``model`` are options of the network that are others than the paper's.
    """
    name = _kernels_in_use(setting.device)
    variants: Variants = {name: partial(_eager, setting, **model)}
    if setting.device == "cuda":
        variants[f"{name}, CUDA graph"] = partial(_recorded, setting, **model)
    return variants


def ottt(setting: Setting) -> Variants:
    """OTTT with batch normalization of each step and fixed thresholds."""
    return online(setting, rule="ottt", norm="per_step", stabilize_threshold=False)


def sltt(setting: Setting) -> Variants:
    """SLTT with batch normalization of each step and fixed thresholds."""
    return online(setting, rule="sltt", norm="per_step", stabilize_threshold=False)


def _eager(setting: Setting, **options: Any) -> TrainingStep:
    trainer = Trainer(experiment_of(setting, model=options), _one_batch(setting))
    trainer.silence.watch(False)  # as in training, once every layer has fired
    model = trainer.model.train()
    frames, labels = batch_in_memory(setting)
    clip = frames.expand(setting.steps, *frames.shape)  # (T, N, C, H, W)

    def losses() -> Iterator[Tensor]:
        with sequence(model, steps=setting.steps, still=True):
            for chunk in clip.split(setting.chunk):  # (K, N, C, H, W)
                with autocast(setting):
                    loss = loss_of(setting, model(chunk), labels)
                yield loss

    return TrainingStep(model, trainer.optimizer, losses)


def _recorded(setting: Setting, **options: Any) -> TrainingStep:
    return as_graph(_eager(setting, **options))


def as_graph(eager: TrainingStep, recorder: Recorder | None = None) -> TrainingStep:
    """Any step with its forward and backward passes as a CUDA graph; its batch must not change.

    ``recorder`` is `CudaRecorder` unless given.
    """
    recorder = recorder or CudaRecorder()

    def passes() -> Tensor:
        eager.passes()
        return torch.zeros(())  # a recording's result; nothing reads it

    for _ in range(WARM_UP):
        recorder.warm_up(passes)
    replay, _ = recorder.record(passes)
    gradients = {parameter: parameter.grad for parameter in eager.model.parameters()}

    def losses() -> Iterator[Tensor]:
        replay()
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        yield from ()

    return TrainingStep(eager.model, eager.optimizer, losses, eager.layout, eager)


def experiment_of(
    setting: Setting,
    *,
    dataset: str = "embedded",
    model: Mapping[str, Any] = MappingProxyType({}),
    **training: Any,
) -> Experiment:
    """The experiment that `steadyspike train` would read from params.yaml.

    ``model`` and ``training`` are what differs from the paper's method in those sections.
    """
    options: dict[str, Any] = {
        "name": "vggsnn",
        "norm": "osr",
        "stabilize_threshold": True,
        "online": True,
        "reset": "subtract",
        "tau": 2.0,
        "v_threshold": 1.0,
        "surrogate_slope": 4.0,
        "dropout": 0.0,
        "inference_threshold": "live",
        "fallback_ratio": 20.0,
        **model,
    }
    if setting.widths is not None:
        options["widths"] = list(setting.widths)
    return Experiment.model_validate(
        {
            "name": "bench",
            "seeds": [0],
            "device": setting.device,
            "dataset": {"name": dataset, "augmentation": "crop_flip"},
            "model": options,
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
                "cuda_graph": True,
                **training,
            },
            "evaluation": {"batch": setting.batch, "steps": setting.steps},
        }
    )


def _one_batch(setting: Setting) -> Dataset:
    """A data set of black images, from which the Trainer learns their shape."""
    split = Split(
        torch.zeros((setting.batch, *setting.image), dtype=torch.uint8),
        torch.zeros(setting.batch, dtype=torch.int64),
    )
    channels = setting.image[0]
    classes = tuple(str(number) for number in range(CLASSES))
    return Dataset("bench", classes, (0.5,) * channels, (0.25,) * channels, split, split)


def _kernels_in_use(device: str) -> str:
    name = kernels.backend(torch.zeros(1, device=device)).__name__.rpartition(".")[2]
    return "plain torch" if name == "reference" else f"{name} kernels"
