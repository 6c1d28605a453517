import json
from pathlib import Path
from typing import Any

import pytest
import torch

from steadyspike.data import Dataset
from steadyspike.errors import UserError
from steadyspike.train.run import train_run
from steadyspike.train.verify import verify
from tiny import command, contents, make_project, read_json, tiny_dataset, tiny_experiment, trained


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
    """As the report joins them: the digests of every experiment by its name."""
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


@pytest.mark.parametrize("batch", ["1", "2", "5"])
@pytest.mark.parametrize("name", ["classifier.bias", "features.0.norm.running_var"])
def test_one_altered_digest_is_found(
    recorded: Path, dataset: Dataset, batch: str, name: str
) -> None:
    content = read_json(recorded)
    digest = content["tiny"]["batches"][batch][name]
    content["tiny"]["batches"][batch][name] = digest[:-1] + ("0" if digest[-1] != "0" else "1")
    recorded.write_text(json.dumps(content))
    verdict = verify(tiny_experiment(), dataset, recorded)
    assert verdict.difference == f"{name} differs after batch {batch}"


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_a_tensor_more_or_less_is_found(recorded: Path, dataset: Dataset, change: str) -> None:
    content = read_json(recorded)
    tensors = content["tiny"]["batches"]["2"]
    if change == "missing":
        del tensors["classifier.bias"]
    else:
        tensors["classifier.other"] = "0" * 64
    recorded.write_text(json.dumps(content))
    difference = verify(tiny_experiment(), dataset, recorded).difference
    assert difference is not None
    assert difference.startswith("classifier.")


def test_a_batch_that_is_no_longer_reached_is_found(recorded: Path, dataset: Dataset) -> None:
    content = read_json(recorded)
    content["tiny"]["batches"]["10"] = content["tiny"]["batches"]["5"]
    recorded.write_text(json.dumps(content))
    difference = verify(tiny_experiment(), dataset, recorded).difference
    assert difference is not None
    assert difference.endswith("differs after batch 10")


def test_no_more_batches_than_asked_for(recorded: Path, dataset: Dataset) -> None:
    content = read_json(recorded)
    content["tiny"]["batches"]["5"]["classifier.bias"] = "0" * 64
    recorded.write_text(json.dumps(content))
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


def test_other_parameters_are_told(recorded: Path, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"digests\.json: tiny: recorded with other parameters"):
        verify(tiny_experiment(**{"training.learning_rate": 0.2}), dataset, recorded)


def _without(key: str) -> Any:
    return lambda content: content["tiny"].pop(key)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: content.pop("tiny"), "tiny: no entry 'tiny'"),
        (_without("fingerprint"), "tiny: no entry 'fingerprint'"),
        (_without("batches"), "tiny: no entry 'batches'"),
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
def test_what_is_no_record_is_told(
    recorded: Path, dataset: Dataset, change: Any, told: str
) -> None:
    content = read_json(recorded)
    change(content)
    recorded.write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"digests\.json: {told}"):
        verify(tiny_experiment(), dataset, recorded)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"tiny"', "\0"])
def test_what_is_no_json_is_told(recorded: Path, dataset: Dataset, text: str) -> None:
    recorded.write_text(text)
    with pytest.raises(UserError, match=r"digests\.json: cannot be read"):
        verify(tiny_experiment(), dataset, recorded)


def test_nothing_recorded_is_told(tmp_path: Path, dataset: Dataset) -> None:
    with pytest.raises(UserError, match=r"digests\.json: not found: `make train` writes it"):
        verify(tiny_experiment(), dataset, tmp_path / "digests.json")


def test_the_command(tmp_path: Path) -> None:
    make_project(tmp_path)
    digests = read_json(trained() / "runs" / "tiny" / "digests.json")
    altered = json.loads(json.dumps(digests))
    altered["batches"]["10"]["classifier.bias"] = "0" * 64
    (tmp_path / "reports").mkdir()
    recorded = tmp_path / "reports" / "digests.json"
    recorded.write_text(json.dumps({"tiny": digests}))
    result = command(tmp_path, "verify", "tiny")
    assert result.stdout.startswith("tiny: equal, ")
    assert result.stdout.endswith("after batches 1, 2, 5, 10\n")
    assert (result.returncode, result.stderr) == (0, "")
    recorded.write_text(json.dumps({"tiny": altered}))
    result = command(tmp_path, "verify", "tiny")
    assert result.stdout == "tiny: DIFFERS: classifier.bias differs after batch 10\n"
    assert (result.returncode, result.stderr) == (1, "")
    assert not (tmp_path / "runs").exists()
