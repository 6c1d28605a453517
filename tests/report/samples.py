"""Made-up runs for the report to read: their numbers are arbitrary but fixed."""

import csv
import hashlib
import json
import math
from pathlib import Path
from typing import Any

from steadyspike.evaluate.metrics import Measurement, mean_over_seeds
from steadyspike.train.config import Experiment, load_experiments
from steadyspike.train.params import merge, read_yaml
from tiny import REPOSITORY

EXPERIMENTS: dict[str, dict[str, Any]] = {  # in another order than the report's
    "osr_ots": {"model": {"norm": "osr", "stabilize_threshold": True}},
    "osr": {"model": {"norm": "osr"}, "training": {"weight_decay": 0.0002}},
    "per_step": {"model": {"norm": "per_step"}},
    "ots": {"model": {"norm": "per_step", "stabilize_threshold": True}},
    "bptt": {"model": {"norm": "batch", "online": False}},
    "linear": {"model": {"norm": "linear"}},
}

# The repository's own, but for whatever a test of the report names.
DEFAULTS: dict[str, Any] = merge(
    read_yaml(REPOSITORY / "params.yaml")["defaults"],
    {
        "seeds": [0],
        "device": "cpu",
        "dataset": {"name": "embedded", "augmentation": "none"},
        "model": {
            "name": "vggsnn",
            "widths": [32, 64, "P", 128, 128, "P", 256, 256, "P", 256, 256],
            "norm": "osr",
            "stabilize_threshold": False,
            "online": True,
            "inference_threshold": "live",
        },
        "training": {"steps": 4, "epochs": 12, "batch": 64, "weight_decay": 0.0005},
        "evaluation": {"batch": 100, "steps": 4},
    },
)

ACCURACY = {
    "per_step": 71.204,
    "ots": 72.5,
    "osr": 73.961,
    "osr_ots": 74.85,
    "linear": 51.3,
    "bptt": 74.42,
}


def write_params(folder: Path, experiments: dict[str, dict[str, Any]] | None = None) -> None:
    """JSON is YAML, and needs no second writer."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"defaults": DEFAULTS, "experiments": experiments or EXPERIMENTS}
    (folder / "params.yaml").write_text(json.dumps(content), encoding="utf-8")


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def settings(name: str) -> Experiment:
    """One of EXPERIMENTS."""
    return Experiment.model_validate({"name": name, **merge(DEFAULTS, EXPERIMENTS[name])})


def digests(known: Experiment) -> dict[str, Any]:
    weights = {"features.0.conv.weight": sha256(known.name)}
    return {
        "batches": {"1": weights},
        "fingerprint": known.runs[0].fingerprint(),
        "weights_sha256": sha256(f"weights of {known.name}"),
    }


def metrics(
    name: str, known: Experiment | None = None, accuracies: list[tuple[float, float]] | None = None
) -> dict[str, Any]:
    """Of an experiment, if it is none of EXPERIMENTS; ``accuracies`` are last and best by seed."""
    known = known or settings(name)
    stabilize = known.model.stabilize_threshold
    measurements = {str(seed): measurement(name) for seed in known.seeds}
    if accuracies is not None:
        measurements = {str(seed): measurement(name) for seed in range(len(accuracies))}
        for each, (last, best) in zip(measurements.values(), accuracies, strict=True):
            each["accuracy"] = {"last": last, "best": best, "best_epoch": 3}
    mean = mean_over_seeds(list(map(Measurement.model_validate, measurements.values())))
    return {
        "experiment": name,
        "parameters": 2312842,
        "evaluation": {
            "test_images": 1000,
            "batch": known.evaluation.batch,
            "steps": known.evaluation.steps,
            "threshold": known.model.inference_threshold if stabilize else "constant",
        },
        **mean.model_dump(exclude_none=True),
        **({"seeds": measurements} if len(measurements) > 1 else {}),
    }


def measurement(name: str) -> dict[str, Any]:
    """Of one seed."""
    place = list(ACCURACY).index(name) if name in ACCURACY else 0
    accuracy = {
        "last": ACCURACY.get(name, 50.0),
        "best": ACCURACY.get(name, 50.0) + 0.4,
        "best_epoch": 11,
    }
    first = 0.11 + 0.01 * place
    flat = name.endswith("ots")
    rates = [first + (0.001 if flat else 0.03) * min(step, 2) for step in range(4)]
    used = [10.0 + 3 * place, 60.0, 70.0, ACCURACY.get(name, 50.0)]
    trained = [used[0] + 4.5 * (5 - place), 64.25, 70.0, ACCURACY.get(name, 50.0)]
    return {
        "accuracy": accuracy,
        "after_steps": {
            "inference": {"step_accuracy": used, "votes_accuracy": used},
            "batch": {"step_accuracy": trained, "votes_accuracy": trained},
        },
        "loss": {"train": 0.31 + 0.02 * place, "test": 0.92 + 0.03 * place},
        "firing_rate": {"gross": sum(rates) / 4, "per_step": rates},
        "operations": {
            "synaptic_operations": 1_234_567.5 + 1000 * place,
            "multiply_accumulates": 903_168.0,
            "energy_nanojoule": 5265.0 + place,
            "dense_multiply_accumulates": 9_876_543.0,
        },
        "inference": {"live": ACCURACY.get(name, 50.0)},
        "osr_fallbacks": 7 if name.startswith("osr") else 0,
    }


def history(name: str, epochs: int = 12) -> list[dict[str, Any]]:
    place = list(ACCURACY).index(name) if name in ACCURACY else 0
    return [
        {
            "epoch": epoch,
            "learning_rate": 0.05 * (1 + math.cos(math.pi * epoch / epochs)),
            "train_loss": 0.3 + 0.02 * place + 1.9 * math.exp(-epoch / 4),
            "train_accuracy": 92 - place - 60 * math.exp(-epoch / 4),
            "test_loss": 0.9 + 0.03 * place + 1.3 * math.exp(-epoch / 3),
            "test_accuracy": ACCURACY.get(name, 50.0) * (1 - 0.6 * math.exp(-epoch / 3)),
            "osr_fallbacks": max(0, 4 - epoch),
            "silent_layers": "",
            "exploding_layers": "",
        }
        for epoch in range(1, epochs + 1)
    ]


PLACES = [place for place, width in enumerate(DEFAULTS["model"]["widths"]) if width != "P"]


def layers(number: int = 8, steps: int = 4, count: int = 60) -> dict[str, Any]:
    low, high = -3.0, 3.0
    width = (high - low) / count
    content: dict[str, Any] = {"bins": {"low": low, "high": high, "count": count}, "layers": []}
    for layer in range(number):
        mean, std = 0.1 - 0.05 * layer, 0.55 + 0.04 * layer
        entry: dict[str, Any] = {"name": f"features.{PLACES[layer]}.neuron"}
        entry["firing_rate"] = [0.15] * steps
        entry["counts"], entry["below"], entry["above"] = [], [], []
        entry["mean"], entry["std"], entry["threshold"] = [], [], []
        for step in range(steps):
            at = mean + 0.02 * step
            entry["counts"].append(
                [
                    round(40000 * math.exp(-(((low + (i + 0.5) * width - at) / std) ** 2) / 2))
                    for i in range(count)
                ]
            )
            entry["below"].append(12 + layer)
            entry["above"].append(9)
            entry["mean"].append(at)
            entry["std"].append(std)
            entry["threshold"].append(1.0 + 0.01 * layer * step)
        content["layers"].append(entry)
    return content


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_run(
    folder: Path, name: str, accuracies: list[tuple[float, float]] | None = None, **changes: Any
) -> None:
    """Everything that an experiment of the folder's params.yaml leaves behind.

    ``changes`` are made to its metrics; ``accuracies`` are last and best by seed.
    """
    known = load_experiments(folder / "params.yaml")[name]
    home = folder / "runs" / name
    home.mkdir(parents=True, exist_ok=True)
    content = metrics(name, known, accuracies) | changes
    (home / "metrics.json").write_text(json.dumps(content), encoding="utf-8")
    write_csv(home / "history.csv", history(name, known.training.epochs))
    (home / "digests.json").write_text(json.dumps(digests(known)), encoding="utf-8")
    (home / "layers.json").write_text(json.dumps(layers()), encoding="utf-8")


def write_memory(folder: Path) -> None:
    rows: list[dict[str, Any]] = []
    for steps in (2, 4, 6, 8, 10, 15, 20, 25, 30):
        for chunk in (1, 4):
            kept = 61_234_567 * min(chunk, steps)
            rows.append({"method": "online", "chunk": chunk, "steps": steps, "bytes": kept})
        kept = 31_000_123 * steps + 1_000_000
        rows.append({"method": "bptt", "chunk": steps, "steps": steps, "bytes": kept})
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    write_csv(folder / "runs" / "memory.csv", rows)


def write_pipeline(folder: Path, leave_out: tuple[str, ...] = ()) -> Path:
    """A pipeline of which all but the experiments of `leave_out` has been run."""
    write_params(folder)
    for name in EXPERIMENTS:
        if name not in leave_out:
            write_run(folder, name)
    write_memory(folder)
    return folder
