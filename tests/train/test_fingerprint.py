"""An experiment's fingerprint: what decides a result is part of it, and nothing else is."""

from typing import Any

import pytest

from steadyspike.train.config import _ADDED_LATER, load_experiments
from tiny import REPOSITORY, read_json, tiny_experiment
from train.test_config import OWN

HELD_OUT = {"dataset.validation": 7}
BACKWARD_STEPS = "training.backward_steps"
ALTERED = {
    "name": "other",
    "seeds": [1],
    "dataset.name": "fashion_mnist",
    "dataset.augmentation": "none",
    "model.widths": [4, "P", 5],
    "model.norm": "linear",
    "model.stabilize_threshold": False,
    "model.online": False,
    "model.reset": "zero",
    "model.tau": 2.5,
    "model.v_threshold": 1.5,
    "model.surrogate_slope": 3.0,
    "model.dropout": 0.1,
    "model.inference_threshold": "fixed",
    "model.fallback_ratio": 21.0,
    "model.warm_up_statistics": True,
    "training.epochs": 3,
    "training.batch": 17,
    "training.learning_rate": 0.2,
    "training.momentum": 0.8,
    "training.weight_decay": 4e-4,
    "training.mse_weight": 0.06,
    "model.rule": "ottt",
    "training.online_update": True,
    "training.precision": "bfloat16",
    "evaluation.batch": 11,
}


@pytest.mark.parametrize("key", ALTERED)
def test_whatever_decides_the_run_changes_the_fingerprint(key: str) -> None:
    needed = {"training.chunk": 1} if key == "training.online_update" else {}
    changed = tiny_experiment(**{key: ALTERED[key]}, **needed)
    assert changed.fingerprint() != tiny_experiment().fingerprint()
    differing = {
        other
        for other, value in changed.decisive().items()
        if tiny_experiment().decisive().get(other) != value
    }
    assert differing == {key}


def test_the_steps_learned_from_are_part_of_the_fingerprint() -> None:
    some, more = (tiny_experiment(**{"model.rule": "sltt_k", BACKWARD_STEPS: k}) for k in (1, 2))
    assert some.decisive() != more.decisive()
    assert some.fingerprint() != more.fingerprint()


def test_a_younger_option_leaves_older_results_as_they_are() -> None:
    assert not set(_ADDED_LATER) & set(tiny_experiment().decisive())
    explicit = {key: value for key, value in _ADDED_LATER.items() if value is not None}
    assert tiny_experiment(**explicit).fingerprint() == tiny_experiment().fingerprint()


def test_held_out_images_are_part_of_the_fingerprint() -> None:
    assert tiny_experiment().fingerprint() != tiny_experiment(**HELD_OUT).fingerprint()
    assert tiny_experiment(**HELD_OUT).dataset.options == {"validation": 7}


def test_own_images_are_known_by_their_content_not_their_place() -> None:
    own = tiny_experiment(**OWN)
    assert own.fingerprint() == tiny_experiment(**OWN | {"dataset.path": "elsewhere"}).fingerprint()
    for key, value in {"dataset.size": 9, "dataset.channels": 1}.items():
        assert own.fingerprint() != tiny_experiment(**OWN | {key: value}).fingerprint()
    assert own.dataset.options == {"path": "mine", "size": 8}
    assert tiny_experiment().dataset.options == {}


def test_every_key_is_tried_above() -> None:
    shared = {"device", "training.chunk"}  # these may change when a run goes on
    other = {"training.steps", "evaluation.steps", "model.name"}
    fields = set(tiny_experiment().decisive()) | shared | set(_ADDED_LATER) - {BACKWARD_STEPS}
    optional = {key for key in fields if key.startswith("model.") and key not in ALTERED} - other
    assert all(tiny_experiment().decisive()[key] is None for key in optional)
    assert fields - optional == ALTERED.keys() | shared | other


@pytest.mark.parametrize("dotted", [{"device": "cuda"}, {"training.chunk": 1}, {"model.tau": 2}])
def test_whatever_does_not_decide_it_does_not(dotted: dict[str, Any]) -> None:
    assert tiny_experiment(**dotted).fingerprint() == tiny_experiment().fingerprint()


def test_several_seeds_are_several_runs() -> None:
    experiment = tiny_experiment(seeds=[4, 2])
    assert [run.seed for run in experiment.runs] == [4, 2]
    assert [run.seeds for run in experiment.runs] == [[4], [2]]
    first, second = experiment.runs
    assert first.fingerprint() == tiny_experiment(seeds=[4]).fingerprint()
    assert len({experiment.fingerprint(), first.fingerprint(), second.fingerprint()}) == 3


def test_the_fingerprints_are_those_of_the_committed_results() -> None:
    digests = read_json(REPOSITORY / "reports" / "digests.json")
    recorded = {name: run["fingerprint"] for name, run in digests.items()}
    experiments = load_experiments(REPOSITORY / "params.yaml")
    assert {name: run.fingerprint() for name, run in experiments.items()} == recorded
