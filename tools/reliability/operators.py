"""The operators of torch that an experiment calls, and those whose bits are not settled.

A `TorchDispatchMode` notes what one batch of training, a step of the optimizer and the evaluation
call on a small twin of the experiment, with the fused kernels and without. Which operators a
network calls depends on its options, not on its widths or its device.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from steadyspike import kernels
from steadyspike.data import Dataset
from steadyspike.data.dataset import Split
from steadyspike.evaluate.membranes import Membranes
from steadyspike.evaluate.rates import FiringRates
from steadyspike.train.accuracy import Presentation, evaluate
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.trainer import Trainer

#: What the documentation of use_deterministic_algorithms says is refused on a GPU, by the name
#: that it gives, and the operators that are meant; `backward` where only a gradient is refused.
REFUSED: dict[str, tuple[str, ...]] = {
    "torch.nn.AvgPool3d": ("avg_pool3d_backward",),
    "torch.nn.AdaptiveAvgPool2d": ("_adaptive_avg_pool2d_backward",),
    "torch.nn.AdaptiveAvgPool3d": ("_adaptive_avg_pool3d_backward",),
    "torch.nn.AdaptiveMaxPool2d": ("adaptive_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool2d": ("fractional_max_pool2d_backward",),
    "torch.nn.FractionalMaxPool3d": ("fractional_max_pool3d_backward",),
    "torch.nn.MaxUnpool1d": ("max_unpool2d",),
    "torch.nn.MaxUnpool2d": ("max_unpool2d",),
    "torch.nn.MaxUnpool3d": ("max_unpool3d",),
    "torch.nn.functional.interpolate": (
        "upsample_linear1d_backward",
        "upsample_bilinear2d_backward",
        "_upsample_bilinear2d_aa_backward",
        "upsample_bicubic2d_backward",
        "_upsample_bicubic2d_aa_backward",
        "upsample_trilinear3d_backward",
    ),
    "torch.nn.ReflectionPad1d": ("reflection_pad1d_backward",),
    "torch.nn.ReflectionPad2d": ("reflection_pad2d_backward",),
    "torch.nn.ReflectionPad3d": ("reflection_pad3d_backward",),
    "torch.nn.NLLLoss": ("nll_loss2d_forward",),  # of images; that of a row of classes is not
    "torch.nn.CTCLoss": ("_ctc_loss_backward",),
    "torch.nn.EmbeddingBag": ("_embedding_bag_backward", "_embedding_bag_dense_backward"),
    "torch.Tensor.put_": ("put_", "put"),
    "torch.histc": ("histc",),
    "torch.bincount": ("bincount",),
    "torch.median": ("median", "nanmedian"),
    "torch.nn.functional.grid_sample": ("grid_sampler_2d_backward", "grid_sampler_3d_backward"),
    "torch.Tensor.scatter_reduce": ("scatter_reduce", "scatter_reduce_"),
}
#: MKL's, which choose their code by the processor whatever is pinned: seen to differ between
#: processors with AVX-512 and without. (`sqrt` of a power of one half is one too.)
BY_PROCESSOR = frozenset({"acos", "asin", "atan", "log", "sqrt", "tan"})

#: What makes a network small, by its name. Widths of 8: oneDNN hangs in the gradient of a 1x1
#: convolution of stride 2 with fewer channels.
_NETWORKS: dict[str, dict[str, Any]] = {
    "vggsnn": {"widths": [8, "P", 8]},
    "resnet19": {"widths": [8, 8, 8], "blocks": [1, 1, 1], "hidden_width": 8},
    "sew_resnet34": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
    "nf_resnet34": {"widths": [8, 8, 8, 8], "blocks": [1, 1, 1, 1]},
}
_CLIPS = {"cifar10_dvs": 10, "dvs_gesture": 20}  # of so many frames
_CHANNELS = {"embedded": 1, "fashion_mnist": 1}
_SIDE, _EVENT_SIDE, _FRAMES, _BATCH = 16, 128, 3, 2


class Calls(TorchDispatchMode):
    """Within the body every operator that is called is added to ``names``, without ``aten::``."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        second = args[1] if len(args) > 1 else None
        if name in ("pow", "pow_") and not isinstance(second, Tensor) and second in (0.5, -0.5):
            name = "sqrt"
        if name == "bincount" and second is None and (kwargs or {}).get("weights") is None:
            name = "bincount of ones"  # whole numbers, the same in any order
        self.names.add(name)
        return func(*args, **(kwargs or {}))


def documented() -> dict[str, str]:
    """What torch's own documentation says is refused on a GPU: names, and what is said of each."""
    text = str(torch.use_deterministic_algorithms.__doc__)
    text = text.split(":class:`RuntimeError` when ``mode=True``:")[1].split("In addition,")[0]
    told = {}
    for entry in re.split(r"\n {8}\* ", text)[1:]:
        name = re.match(r":(?:func|class):`([^`]+)`", entry)
        assert name is not None, entry
        elsewhere = ("MPS tensor" in entry and "CUDA" not in entry) or "quantized" in entry
        if not elsewhere:
            told[name[1]] = " ".join(entry.split())
    return told


def every_experiment(repository: Path) -> Iterator[tuple[str, Experiment]]:
    """All that the repository has, by the name of its pipeline and its own."""
    for params in [
        repository / "params.yaml",
        *sorted(repository.glob("pipelines/*/params.yaml")),
    ]:
        pipeline = params.parent.relative_to(repository).name or "default"
        for name, experiment in load_experiments(params).items():
            yield f"{pipeline} {name}", experiment


def operators(experiment: Experiment) -> set[str]:
    """All that training, testing and the optimizer call, by the kernels and by plain torch."""
    twin = small(experiment)
    dataset = _dataset(twin)
    with Calls() as calls:
        _one_batch(twin, dataset)
        with kernels.disabled():
            _one_batch(twin, dataset)
    return calls.names


def small(experiment: Experiment) -> Experiment:
    """The same on a CPU, narrow, for one short batch; of the options nothing else changes."""
    tree = experiment.model_dump(exclude_none=True)
    narrow = dict(_NETWORKS[experiment.model.name])
    if tree["model"].get("head") == "gesture":
        narrow["head_widths"] = [8, 8]
    tree["model"] |= narrow
    tree["device"] = "cpu"
    frames = _CLIPS.get(experiment.dataset.name)
    # Of a clip some are left out, or none; BPTT sees all at once.
    steps = _FRAMES if experiment.training.steps == frames else _FRAMES - 1
    chunk = steps if experiment.training.chunk == experiment.training.steps else 1
    tree["training"] |= {"epochs": 1, "batch": _BATCH, "steps": steps, "chunk": chunk}
    tree["evaluation"] |= {"batch": _BATCH, "steps": _FRAMES if frames else steps}
    return Experiment.model_validate(tree)


def _dataset(experiment: Experiment) -> Dataset:
    """Of noise, in the shape of the experiment's own."""
    name = experiment.dataset.name
    channels = 2 if name in _CLIPS else _CHANNELS.get(name, 3)
    shape = (channels, _SIDE, _SIDE)
    if name in _CLIPS:
        shape = (_FRAMES, channels, _EVENT_SIDE, _EVENT_SIDE)
    generator = torch.Generator().manual_seed(0)
    samples = torch.randint(0, 256, (_BATCH, *shape), dtype=torch.uint8, generator=generator)
    split = Split(samples, torch.arange(_BATCH))
    classes = tuple(f"class {k}" for k in range(10))
    return Dataset(name, classes, (0.5,) * channels, (0.25,) * channels, split, split)


def _one_batch(experiment: Experiment, dataset: Dataset) -> None:
    trainer = Trainer(experiment, dataset)
    for _ in trainer.run_epoch():
        pass
    trainer.finish_epoch()
    how = Presentation.of(experiment)
    rates = FiringRates(trainer.model, how.steps)
    membranes = Membranes(trainer.model, how.steps)
    with rates.counted(), membranes.observed():
        evaluate(trainer.model, dataset, replace(how, still=False))
    rates.gross()
    membranes.summary()
