"""The same weights twice, and by a CUDA graph; a loss as on the CPU; where the host waits."""

import multiprocessing
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from common import Options, experiment, noise, release
from record import Row

from steadyspike.data import Dataset
from steadyspike.errors import first_line
from steadyspike.train.config import Experiment
from steadyspike.train.determinism import make_deterministic
from steadyspike.train.digest import weights_sha256
from steadyspike.train.trainer import Trainer

SMALL = {"widths": [32, "P", 64, 64]}
#: Overrides of the network and of the training, by what they are to show.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float32 K 4": ({}, {}),
    "float32 K 1": ({}, {"chunk": 1}),
    "bfloat16 K 4": ({}, {"precision": "bfloat16"}),
    "bfloat16 K 1, dropout": ({"dropout": 0.1}, {"precision": "bfloat16", "chunk": 1}),
    "tf32 K 4": ({}, {"precision": "tf32"}),
    "bfloat16, no OTS": ({"stabilize_threshold": False}, {"precision": "bfloat16"}),
    "per_step, reset to zero": ({"norm": "per_step", "reset": "zero"}, {}),
    "bfloat16, linear": (
        {"norm": "linear", "stabilize_threshold": False},
        {"precision": "bfloat16"},
    ),
    "bfloat16, ResNet-19": (
        {"name": "resnet19", "widths": [16, 32], "blocks": [1, 1]},
        {"precision": "bfloat16"},
    ),
    "bfloat16, NF-ResNet-34": (
        {"name": "nf_resnet34", "widths": [16, 32], "blocks": [1, 1]},
        {"precision": "bfloat16"},
    ),
}
TOLERANCE = 0.02  # of the first epoch's loss, CPU to GPU: rounding moves spikes
WORKERS = 5  # processes: compiling takes most of the time, on one core each
ON_A_CPU = "first epoch's loss, CPU and GPU"
WAITS = {
    "waits of the host in a batch, eager": False,
    "waits of the host in a batch, as a graph": True,
}


def measure(options: Options) -> Iterator[Row]:
    names = [*WAITS, ON_A_CPU, *CASES]
    if options.rehearse:
        names = ["float32 K 4", "bfloat16, NF-ResNet-34"]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1 if options.rehearse else WORKERS, context) as pool:
        started = [pool.submit(_measured, name, options) for name in names]
        for done in as_completed(started):
            yield done.result()


def _measured(name: str, options: Options) -> Row:
    """One of the rows; in a process of its own on a GPU."""
    make_deterministic()
    dataset = noise(48, 16, 12) if options.rehearse else noise(330, 70, 16)
    try:
        if name == ON_A_CPU:
            return _as_on_a_cpu(options, dataset)
        if name in WAITS:
            return _waits(options, dataset, name)
        return _same(options, dataset, name, *CASES[name])
    except Exception as error:
        traceback.print_exc()
        return Row(name, first_line(error), holds=False)
    finally:
        release()


def _small(
    options: Options, model: dict[str, Any], training: dict[str, Any], **more: Any
) -> Experiment:
    sizes = {"epochs": 2, "batch": 32, **training}
    return experiment(
        options, model={**SMALL, **model}, training=sizes, evaluation={"batch": 32}, **more
    )


def _trained(experiment: Experiment, dataset: Dataset) -> Trainer:
    trainer = Trainer(experiment, dataset)
    while not trainer.finished:
        for _ in trainer.run_epoch():
            pass
        trainer.finish_epoch()
    return trainer


def _same(
    options: Options,
    dataset: Dataset,
    name: str,
    model: dict[str, Any],
    training: dict[str, Any],
) -> Row:
    runs = {"first": _trained(_small(options, model, training), dataset)}
    runs["again"] = _trained(_small(options, model, training), dataset)
    recorded = True
    if not options.rehearse:
        graph = _small(options, model, {**training, "cuda_graph": True})
        runs["as a graph"] = run = _trained(graph, dataset)
        recorded = run.replayed is not None and bool(run.replayed[False].recorded)
    sums = {key: weights_sha256(run.model.state_dict()) for key, run in runs.items()}
    losses = [round(row.train_loss, 4) for row in runs["first"].rows]
    differing = [key for key in sums if sums[key] != sums["first"]]
    result = f"other bits {' and '.join(differing)}" if differing else f"equal {len(sums)} times"
    if not recorded:
        result += ", no graph was recorded"
    silent = runs["first"].rows[-1].silent_layers
    if silent:
        result += f", silent {' '.join(silent)}"
    data = {"weights_sha256": sums, "losses": losses}
    return Row(name, f"{result}, loss {losses}", not differing and recorded, data=data)


def _as_on_a_cpu(options: Options, dataset: Dataset) -> Row:
    losses = {}
    for device in ("cpu", "cuda"):
        one = _small(options, {}, {"epochs": 1}).model_copy(update={"device": device})
        losses[device] = _trained(one, dataset).rows[0].train_loss
    apart = abs(losses["cuda"] / losses["cpu"] - 1)
    return Row(
        ON_A_CPU,
        f"{losses['cpu']:.5f} and {losses['cuda']:.5f}, {100 * apart:.2f} % apart",
        holds=apart < TOLERANCE,
        data=losses,
    )


def _waits(options: Options, dataset: Dataset, name: str) -> Row:
    """How often the host waits for the GPU in a batch, and in which lines."""
    training = {"precision": "bfloat16", "cuda_graph": WAITS[name]}
    trainer = Trainer(_small(options, {}, training), dataset)
    places: Counter[str] = Counter()

    def note(message: Any, *_: Any, **__: Any) -> None:
        if "synchroniz" in str(message):
            places[_caller()] += 1

    batches = trainer.run_epoch()
    for _ in range(8):  # compiled, every layer has fired, the graph is recorded
        next(batches)
    torch.cuda.synchronize()
    shown, warnings.showwarning = warnings.showwarning, note
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = note
        torch.cuda.set_sync_debug_mode("warn")
        try:
            next(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
            warnings.showwarning = shown
    lines = ", ".join(f"{place} {count}" for place, count in places.items())
    return Row(name, f"{places.total()} {lines}".strip(), data=dict(places))


def _caller() -> str:
    """The innermost line of steadyspike that is running."""
    frames = [f for f in traceback.extract_stack() if f"{Path('src', 'steadyspike')}" in f.filename]
    if not frames:
        return "elsewhere"
    return f"{frames[-1].filename.rpartition('steadyspike/')[2]}:{frames[-1].lineno}"
