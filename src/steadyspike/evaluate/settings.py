"""The settings of an evaluation: what its numbers depend on besides network and data."""

from dataclasses import dataclass
from typing import Literal

from steadyspike.train.config import Experiment


@dataclass(frozen=True)
class Settings:
    """Batch, steps T, and where the thresholds come from, which without OTS are a constant."""

    batch: int
    steps: int
    threshold: Literal["live", "fixed", "constant"]


def settings_of(experiment: Experiment) -> Settings:
    """As the experiment is evaluated."""
    model = experiment.model
    return Settings(
        batch=experiment.evaluation.batch,
        steps=experiment.evaluation.steps,
        threshold=model.inference_threshold if model.stabilize_threshold else "constant",
    )
