"""The share of training's time that goes by between the steps: reading, moving, augmenting.

It is that of the training loop itself over a real data set: from the end of the optimizer's step
to the beginning of the next forward pass. On a GPU both are moments of the GPU's own queue, so
that what is read while it computes costs nothing.
"""

import time
from collections.abc import Callable
from itertools import islice
from typing import Any, Literal

import torch

from steadyspike import data
from steadyspike.bench.ours import experiment_of
from steadyspike.bench.setting import Setting
from steadyspike.data import Dataset
from steadyspike.train.config import DatasetOptions
from steadyspike.train.trainer import DIGEST_BATCHES, Trainer

AUGMENTATION: Literal["crop_flip"] = "crop_flip"
SKIPPED = max(DIGEST_BATCHES)  # the batches after which weights are hashed


def waiting(setting: Setting, name: str, seconds: float, most: int) -> dict[str, Any]:
    """Train on a data set for about ``seconds``, at most ``most`` batches.

    Returns:
        share of the time (None where the loop does not call the model), batches, seconds of one.
    """
    return waiting_on(data.load(name), setting, name, seconds, most)


def waiting_on(
    dataset: Dataset, setting: Setting, name: str, seconds: float, most: int
) -> dict[str, Any]:
    """As `waiting`, on a data set that is loaded."""
    # A batch must be left for the warm-up and two to measure.
    batch = max(1, min(setting.batch, len(dataset.train) // (SKIPPED + 3)))
    experiment = experiment_of(setting.but(batch=batch)).model_copy(
        update={"dataset": DatasetOptions(name=name, augmentation=AUGMENTATION)}
    )
    trainer = Trainer(experiment, dataset)
    trainer.batch = SKIPPED
    now, between = _clock(setting.device)
    ended: list[Any] = []
    began: list[Any] = []

    def begin(*_: Any) -> None:
        if len(began) < len(ended):  # the first forward pass after a step
            began.append(now())

    trainer.model.register_forward_pre_hook(begin)
    trainer.optimizer.register_step_post_hook(lambda *_: ended.append(now()))
    start = time.perf_counter()
    for _ in islice(trainer.run_epoch(), most + 1):
        if len(ended) > 2 and time.perf_counter() - start > seconds:
            break
    batches = len(ended) - 1
    if len(began) < batches:
        return {"share": None, "batches": batches, "batch": batch, "seconds": 0.0}
    total = between(ended[0], ended[-1])
    idle = sum(between(end, begin) for end, begin in zip(ended[:-1], began, strict=False))
    return {
        "share": idle / total,
        "batches": batches,
        "batch": batch,
        "seconds": total / batches,
    }


def _clock(device: str) -> tuple[Callable[[], Any], Callable[[Any, Any], float]]:
    """A function that marks a moment, and one that tells the seconds between two."""
    if device != "cuda":
        return time.perf_counter, lambda first, second: second - first

    def mark() -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(first: torch.cuda.Event, second: torch.cuda.Event) -> float:
        torch.cuda.synchronize()
        return float(first.elapsed_time(second)) / 1000

    return mark, between
