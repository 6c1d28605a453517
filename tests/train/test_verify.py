import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.run import train_run
from steadyspike.train.verify import verify
from tiny import (
    change_json,
    contents,
    in_process,
    make_project,
    read_json,
    tiny_dataset,
    tiny_experiment,
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return tiny_dataset()


@pytest.fixture(scope="module")
def run(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train_run(tiny_experiment(), dataset, folder)
    return folder


@pytest.fixture
def recorded(run: Path, tmp_path: Path) -> Path:
    """reports/digests.json: the digests of every experiment, by name."""
    path = tmp_path / "digests.json"
    path.write_text(json.dumps({"tiny": read_json(run / "digests.json")}))
    return path


def test_an_unchanged_run_is_equal(recorded: Path, dataset: Dataset) -> None:
    before = contents(recorded.parent)
    torch.manual_seed(123)  # nothing that happened before may matter
    verdict = verify(tiny_experiment(), dataset, recorded)
    assert verdict.difference is None
    assert verdict.batches == (1, 2, 5)  # the fifth lies in the second epoch
    digests = read_json(recorded)["tiny"]["batches"]
    assert verdict.tensors == sum(len(tensors) for tensors in digests.values()) > 50
    assert contents(recorded.parent) == before


def _set(batch: str, name: str, digest: str = "0" * 64) -> Any:
    return lambda batches: batches[batch].update({name: digest})


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (_set("1", "classifier.bias"), "classifier.bias differs after batch 1"),
        (_set("5", "features.0.norm.running_var"), "features.0.norm.running_var .* batch 5"),
        (_set("2", "classifier.other"), "classifier.other differs after batch 2"),
        (lambda batches: batches["2"].pop("classifier.bias"), "classifier.bias .* batch 2"),
        (lambda batches: batches.update({"10": batches["5"]}), "differs after batch 10"),
    ],
)
def test_a_difference_is_found(
    recorded: Path, dataset: Dataset, change: Any, difference: str
) -> None:
    change_json(recorded, lambda content: change(content["tiny"]["batches"]))
    found = verify(tiny_experiment(), dataset, recorded).difference
    assert found is not None
    assert re.search(difference, found)


def test_no_more_batches_than_asked_for(recorded: Path, dataset: Dataset) -> None:
    change_json(recorded, lambda content: _set("5", "classifier.bias")(content["tiny"]["batches"]))
    verdict = verify(tiny_experiment(), dataset, recorded, batches=4)
    assert (verdict.difference, verdict.batches) == (None, (1, 2))
    difference = verify(tiny_experiment(), dataset, recorded, batches=5).difference
    assert difference == "classifier.bias differs after batch 5"


def test_other_data_is_found(recorded: Path) -> None:
    altered = tiny_dataset()
    altered.train.images[7, 0, 3, 3] ^= 1  # type: ignore[attr-defined]
    difference = verify(tiny_experiment(), altered, recorded).difference
    assert difference is not None
    assert difference.endswith("differs after batch 1")


def test_several_seeds_are_verified_by_the_first(dataset: Dataset, tmp_path: Path) -> None:
    experiment = tiny_experiment(seeds=[0, 9], **{"training.epochs": 1})
    train_run(experiment, dataset, tmp_path / "run")
    recorded = tmp_path / "digests.json"
    recorded.write_text(json.dumps({"tiny": read_json(tmp_path / "run" / "digests.json")}))
    assert verify(experiment, dataset, recorded).difference is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("tiny"), "tiny: no entry 'tiny'"),
        (lambda content: content["tiny"].pop("fingerprint"), "tiny: no entry 'fingerprint'"),
        (lambda content: content["tiny"].pop("batches"), "tiny: no entry 'batches'"),
        (
            lambda content: content["tiny"]["batches"].clear(),
            "tiny: batches: expected at least one",
        ),
        (lambda content: content["tiny"]["batches"].update(one={}), "cannot be read"),
        (lambda content: content["tiny"]["batches"].update({"1": 3}), "cannot be read"),
        (lambda content: content["tiny"].update(batches=[1]), "cannot be read"),
        (lambda content: content.update(tiny=[1]), "cannot be read"),
    ],
)
def test_a_malformed_record_is_refused(
    recorded: Path, dataset: Dataset, change: Any, message: str
) -> None:
    change_json(recorded, change)
    with pytest.raises(UserError, match=rf"digests\.json: {message}"):
        verify(tiny_experiment(), dataset, recorded)


def test_an_unusable_record_is_refused(recorded: Path, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"digests\.json: tiny: recorded with other parameters"):
        verify(tiny_experiment(**{"training.learning_rate": 0.2}), dataset, recorded)
    recorded.write_text("{")
    with pytest.raises(UserError, match=r"digests\.json: cannot be read"):
        verify(tiny_experiment(), dataset, recorded)
    recorded.unlink()
    with pytest.raises(UserError, match=r"digests\.json: not found: `make train` writes it"):
        verify(tiny_experiment(), dataset, recorded)


def test_the_command(tmp_path: Path) -> None:
    make_project(tmp_path)
    assert in_process(tmp_path, "train", "tiny").returncode == 0
    digests = read_json(tmp_path / "runs" / "tiny" / "digests.json")
    (tmp_path / "reports").mkdir()
    recorded = tmp_path / "reports" / "digests.json"
    recorded.write_text(json.dumps({"tiny": digests}))
    result = in_process(tmp_path, "verify", "tiny")
    assert result.stdout.startswith("tiny: equal, ")
    assert result.stdout.endswith("after batches 1, 2, 5, 10\n")
    assert (result.returncode, result.stderr) == (0, "")
    change_json(recorded, lambda content: _set("10", "classifier.bias")(content["tiny"]["batches"]))
    result = in_process(tmp_path, "verify", "tiny")
    assert result.stdout == "tiny: DIFFERS: classifier.bias differs after batch 10\n"
    assert (result.returncode, result.stderr) == (1, "")
