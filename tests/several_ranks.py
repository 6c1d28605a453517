"""One of several processes that train tiny experiments together; run by train/test_distributed.py.

Usage: python several_ranks.py FOLDER, with torchrun's variables in the environment.
"""

import sys
from pathlib import Path
from typing import Any

import torch

from steadyspike.train.accuracy import Presentation, evaluate
from steadyspike.train.config import Experiment
from steadyspike.train.digest import state_digest
from steadyspike.train.distributed import Ranks, process_group
from steadyspike.train.trainer import Trainer
from tiny import batches, tiny_dataset, tiny_experiment

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "osr_ots": {},
    "osr_ots_a_step_a_call": {"training.chunk": 1},
    "osr_that_falls_back": {"model.fallback_ratio": 0.5},
    "osr_warmed_up": {"model.warm_up_statistics": True},
    "per_step_ots": {"model.norm": "per_step", "model.reset": "zero"},
    "linear": {"model.norm": "linear", "model.stabilize_threshold": False},
    "bptt": {"model.norm": "batch", "model.stabilize_threshold": False, "model.online": False},
    "ndot": {"model.rule": "ndot", "training.chunk": 3},
    "ottt_online_updates": {
        "model.rule": "ottt",
        "training.online_update": True,
        "training.chunk": 1,
    },
    "drawn_steps": {"model.rule": "sltt_k", "training.backward_steps": 1, "training.chunk": 1},
    "ws": {"model.norm": "ws"},
    "bntt": {"model.norm": "bntt"},
    "tab": {"model.norm": "tab", "training.chunk": 2},
    "tdbn": {"model.norm": "tdbn", "model.online": False},
    "tebn": {"model.norm": "tebn", "model.online": False},
    "resnet19": {
        "model.name": "resnet19",
        "model.widths": [8, 8],
        "model.blocks": [1, 1],
        "model.hidden_width": 4,
    },
    "gesture": {"model.head": "gesture", "model.head_widths": [6, 5]},
}

# By more than two, since 16, 8, 3 and 1 images do not divide evenly; one may have no image.
UNEVEN = ("osr_ots", "osr_that_falls_back", "per_step_ots", "bptt", "tab", "tebn")


def experiment(name: str, precision: str = "float64") -> Experiment:
    """40 images in batches of 16, the last of 8; or in batches of 3, the last of 1."""
    batch = 3 if name == "per_step_ots" else 16
    options = {"training.precision": precision, "training.batch": batch}
    return tiny_experiment(**{**options, **CONFIGURATIONS[name]})


def trajectory(chosen: Experiment, ranks: Ranks) -> dict[str, Any]:
    """The weights after every batch, the rows, and what evaluation saw."""
    trainer = Trainer(chosen, tiny_dataset(), ranks)
    weights = []
    for _ in batches(trainer):
        weights.append({k: v.clone() for k, v in trainer.model.state_dict().items()})
    score = evaluate(trainer.model, trainer.dataset, Presentation.of(chosen), ranks)
    return {
        "weights": weights,
        "rows": trainer.rows,
        "score": (score.loss, score.accuracy),
        "digest": state_digest(trainer.model.state_dict()),
    }


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    with process_group("cpu") as ranks:
        for name in CONFIGURATIONS:
            if ranks.world > 2 and name not in UNEVEN:
                continue
            done = trajectory(experiment(name), ranks)
            (folder / f"{name}.digest.{ranks.rank}").write_text(str(done["digest"]))
            if ranks.writes:
                torch.save(done, folder / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
