"""What the parts share: options, experiments of pipelines/cifar10, synthetic images, timing."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import torch
from record import PARAMS

from steadyspike.bench.records import Setting
from steadyspike.data import Dataset
from steadyspike.data.cifar import MEAN, STD
from steadyspike.data.dataset import Split
from steadyspike.train.config import Experiment
from steadyspike.train.params import merge, read_params

WIDTHS = [4, "P", 4, "P", 8]  # of the rehearsal's network
SECONDS = 0.15  # of runs that make one sample, their mean


@dataclass(frozen=True)
class Options:
    """Those of the command that a part needs; ``seconds`` is its limit."""

    rehearse: bool
    seconds: float
    work: str
    epochs: int
    images: str | None
    experiments: tuple[str, ...]
    precision: str

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        return "cpu" if self.rehearse else "cuda"


def experiment(options: Options, name: str = "vggsnn-osr_ots", **sections: Any) -> Experiment:
    """An experiment of pipelines/cifar10, without a CUDA graph unless ``sections`` asks for one.

    ``sections`` are overrides: ``training={"chunk": 1}``. A rehearsal's network is tiny.
    """
    values = merge(read_params(PARAMS)[name], {"training": {"cuda_graph": False}})
    if options.rehearse:
        small = {"model": {"widths": WIDTHS}, "training": {"batch": 8}, "evaluation": {"batch": 8}}
        values = merge(values, small)
    values = merge(values, sections)
    return Experiment.model_validate({**values, "name": name, "device": options.device})


def setting(options: Options, **changes: Any) -> Setting:
    """The setting of the benchmark's training step."""
    small = {"batch": 4, "widths": tuple(WIDTHS), "image": (3, 8, 8)} if options.rehearse else {}
    base = Setting(device=options.device, batch=128, steps=4, chunk=4)
    return base.but(**{**small, **changes})


def noise(train: int, test: int, side: int) -> Dataset:
    """Random images like CIFAR-10's, (M, 3, side, side), with random labels."""
    generator = torch.Generator().manual_seed(0)

    def split(count: int) -> Split:
        shape = (count, 3, side, side)
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        return Split(images, torch.randint(0, 10, (count,), generator=generator))

    classes = tuple(str(number) for number in range(10))
    return Dataset("cifar10", classes, MEAN, STD, split(train), split(test))


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(run: Callable[[], Any], options: Options) -> float:
    """Seconds of one run: the median of three samples."""
    run()
    synchronize()
    began = time.perf_counter()
    run()
    synchronize()
    samples, count = 3, max(1, min(500, int(SECONDS / max(time.perf_counter() - began, 1e-6))))
    if options.rehearse:
        samples = count = 1
    means = []
    for _ in range(samples):
        began = time.perf_counter()
        for _ in range(count):
            run()
        synchronize()
        means.append((time.perf_counter() - began) / count)
    return median(means)


def release() -> None:
    """Free the GPU memory of what is no longer referred to."""
    import gc

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gigabytes() -> float:
    """Of live tensors since `release`; 0 on a CPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else 0.0


def compared(figure: float, relation: str, target: float, unit: str = "") -> str:
    """A target in words: `at least 14,000 images/s: reached`."""
    met = figure >= target if relation == "at least" else figure <= target
    return f"({relation} {target:,g}{unit}: {'reached' if met else 'missed'})"
