"""A sample of what `python tools/reliability changes` tries, and that it would notice a failure."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from changes import changed_code, with_chunk
from project import NAME, Project, make_project
from refusals import changed_keys, decisive, flat, nested, refused
from resumes import ROUNDING, distance, finish, interrupted_in_epoch, training
from safetensors.torch import save_file


def test_resumed_by_other_code_with_another_chunk_and_refused_with_another_rate(
    project: Project, whole: Project, tmp_path: Path
) -> None:
    source = changed_code(project.source, tmp_path / "other", "neuron.py")
    # Of a folder that goes away nothing compiled is kept.
    other = replace(project, source=source, more={**project.more, "PYTHONDONTWRITEBYTECODE": "1"})
    fresh = itertools.count()
    found = interrupted_in_epoch(
        lambda: other.fresh(tmp_path / f"stopped-{next(fresh)}"), training(), random.Random(0)
    )
    assert found is not None
    stopped, place = found
    assert (place.epoch, place.batch > 0) == (0, True)
    resumed = replace(project, root=stopped.root)
    assert refused(resumed.copy(tmp_path / "refused"), {"training.learning_rate": 0.2})
    assert finish(resumed, with_chunk(1))
    weights = f"runs/{NAME}/model.safetensors"
    assert distance(whole.root / weights, resumed.root / weights) <= ROUNDING
    codes = [
        json.loads((each.run_folder / "digests.json").read_text())["provenance"]["code"]
        for each in (whole, resumed)
    ]
    assert (len(codes[0]), len(codes[1]), codes[1][1:]) == (1, 2, codes[0])


@pytest.mark.parametrize(
    ("program", "starts", "told"), [("", 3, "three times"), ("1/0", 1, "SIGTERM: ended with 1")]
)
def test_training_that_is_over_is_interrupted_anew_and_one_that_fails_is_not(
    program: str, starts: int, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project = replace(make_project(tmp_path), program=("-c", program))
    begun: list[Project] = []

    def fresh() -> Project:
        begun.append(project.fresh(tmp_path / f"fresh-{len(begun)}"))
        return begun[-1]

    assert interrupted_in_epoch(fresh, training(), random.Random(0)) is None
    assert len(begun) == starts
    assert told in capfd.readouterr().err


def test_a_change_that_is_allowed_counts_as_not_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Here by a program that trains whatever it is told to."""
    project = make_project(tmp_path)
    project.run_folder.mkdir(parents=True)
    accepts = Project(project.root, project.source, ("-c", ""))
    assert not refused(accepts, {"training.learning_rate": 0.2})
    line = f"steadyspike: runs/{NAME}/checkpoint.pt: training.batch is 9 and was 10"
    names_another = f"import sys; print({line!r}, file=sys.stderr); sys.exit(2)"
    wrong = Project(project.root, project.source, ("-c", names_another))
    assert not refused(wrong, {"training.learning_rate": 0.2})
    assert refused(wrong, {"training.batch": 9})
    assert "learning_rate" in capfd.readouterr().err


def test_every_key_is_changed_to_what_the_experiment_can_have(tmp_path: Path) -> None:
    from steadyspike.train.config import Experiment
    from steadyspike.train.params import merge, read_params

    project = make_project(tmp_path)
    values = read_params(project.root / "params.yaml")[NAME]
    changed = set()
    for change in changed_keys(project):
        overrides = nested(change)
        name = overrides.pop("name", NAME)
        was = flat(Experiment.model_validate({"name": NAME, **values}).model_dump())
        now = Experiment.model_validate({"name": name, **merge(values, overrides)}).model_dump()
        assert {key for key, value in flat(now).items() if was.get(key) != value} == set(change)
        changed |= change.keys()
    assert decisive(project).keys() - changed == {"dataset.name"}


def test_distance_is_that_of_the_worst_value(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    ours = {"w": torch.tensor([1e-3, 200.0]), "n": torch.tensor(3)}
    save_file(ours, first)
    for changed, apart in (
        ({}, 0.0),
        ({"w": torch.tensor([2e-3, 200.0])}, 1e-3),
        ({"w": torch.tensor([1e-3, 202.0])}, 1e-2),
        ({"n": torch.tensor(4)}, float("inf")),
        ({"w": torch.zeros(3)}, float("inf")),
        ({"more": torch.zeros(1)}, float("inf")),
    ):
        save_file({**ours, **changed}, second)
        assert distance(first, second) == pytest.approx(apart, rel=1e-3)
