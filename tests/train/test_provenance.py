import shutil
from pathlib import Path

import pytest
import yaml

from steadyspike import kernels
from steadyspike.train import provenance
from steadyspike.train.distributed import Ranks
from steadyspike.train.provenance import CODE, PACKAGE, code_sha256, environment_sha256
from tiny import REPOSITORY, tiny_dataset, tiny_experiment


def test_it_names_the_code_that_the_pipeline_names() -> None:
    """Both must say what a change of retrains: one in the metrics, one in dvc.yaml."""
    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    named = [d for d in stages["train"]["do"]["deps"] if d.startswith("src/steadyspike/")]
    assert [f"src/steadyspike/{name}" for name in CODE] == named


def test_another_byte_another_hash(tmp_path: Path) -> None:
    copy = tmp_path / "steadyspike"
    shutil.copytree(PACKAGE, copy)
    assert code_sha256(copy) == code_sha256()
    (copy / "kernels" / "notes.txt").write_text("no source")
    (copy / "cli.py").write_text("# training does not run it")
    assert code_sha256(copy) == code_sha256()
    for name in ("neuron.py", "kernels/cpu.c", "train/loop.py"):
        changed = (copy / name).read_bytes()
        (copy / name).write_bytes(changed + b"\n")
        assert code_sha256(copy) != code_sha256()
        (copy / name).write_bytes(changed)
    (copy / "models" / "new.py").touch()
    assert code_sha256(copy) != code_sha256()


def test_what_may_round_otherwise_is_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny_experiment()
    here = environment_sha256(experiment)
    assert environment_sha256(experiment) == here
    assert environment_sha256(experiment, Ranks(1, 2)) != here
    with kernels.disabled():
        assert environment_sha256(experiment) != here
    monkeypatch.setattr(provenance.torch, "__version__", provenance.torch.__version__ + "+cpu")
    assert environment_sha256(experiment) == here  # the same release, built for a processor
    monkeypatch.setattr(provenance.torch, "__version__", "2.0.0")
    assert environment_sha256(experiment) != here


def test_data_are_told_apart_by_every_byte() -> None:
    dataset = tiny_dataset()
    assert dataset.sha256() == tiny_dataset().sha256()
    for tensor in (dataset.train.images, dataset.test.labels):
        tensor.view(-1)[-1] += 1
        assert dataset.sha256() != tiny_dataset().sha256()
        tensor.view(-1)[-1] -= 1
    assert tiny_dataset(train=39).sha256() != dataset.sha256()
