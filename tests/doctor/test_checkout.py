"""`steadyspike doctor` on the checkout: its disks, its data, and what its experiments want."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from doctor.findings import states, told
from steadyspike.data.dataset import fetched_root
from steadyspike.doctor import experiments, project
from steadyspike.doctor.brief import brief
from steadyspike.doctor.finding import size
from tiny import write_data, write_params

# The checkout


def test_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [(one.topic, one.state) for one in project.disks()] == [("checkout", "ok")]
    monkeypatch.setenv("STEADYSPIKE_DATA", "/dev/shm/not/there/yet")
    assert [one.topic for one in project.disks()] == ["checkout", "datasets"]
    usage = SimpleNamespace(total=2, free=1)
    monkeypatch.setattr(project.shutil, "disk_usage", lambda _: usage)
    assert project.disks()[0].state == "note"
    assert "make room" in project.disks()[0].advice


def test_a_folder_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That of the runs would stop training; data sets are only read."""
    real = os.access
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "runs" and real(path, mode))
    checkout, runs = project.disks()
    assert (checkout.state, runs.state) == ("ok", "problem")
    assert runs.found.startswith(f"{tmp_path}/runs cannot be written by user {os.geteuid()}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [one.state for one in project.disks()] == ["note", "problem", "note"]


def test_the_root_of_the_data_sets_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "elsewhere"):
        if value is not None:
            monkeypatch.setenv("STEADYSPIKE_DATA", value)
        assert project.fetched_root() == fetched_root(None)


def git(*arguments: str) -> None:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *own, *arguments], check=True, capture_output=True)


def test_dvc_and_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.dvc()[0].found == "this folder is no DVC checkout"
    Path(".dvc").mkdir()
    assert "dvc.lock missing" in project.dvc()[0].found
    lock = Path("dvc.lock")
    lock.write_text("a: 1\n")
    (finding,) = project.dvc()
    assert (finding.state, finding.facts["lock"]) == ("ok", None)
    assert "not compared (not a git repository" in finding.found
    git("init")
    assert project.dvc()[0].facts["lock"] == "not committed"
    git("add", "dvc.lock")
    git("commit", "-m", "a")
    assert told(project.dvc())[0][1:] == (
        "ok",
        f"{project.dvc()[0].facts['version']}, dvc.lock as committed",
    )
    assert "commit " in project.version()[0].found
    lock.write_text("a: 2\n")
    (finding,) = project.dvc()
    assert (finding.state, finding.facts["lock"]) == ("note", "changed")
    assert project.version()[0].facts["changed"] == 1
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "safe.directory" in project.version()[0].advice
    monkeypatch.setenv("PATH", "/nothing")
    assert "git is not installed" in project.version()[0].found
    monkeypatch.setitem(sys.modules, "dvc.repo", None)
    assert project.dvc()[0].found.startswith("dvc cannot be imported")


def test_the_embedded_data_pulled_or_not(tmp_path: Path) -> None:
    assert project.pulled() == []
    write_data(tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "data").iterdir()]
    out = f"{{path: data, nfiles: {len(sizes)}, size: {sum(sizes)}}}"
    (tmp_path / "data.dvc").write_text(f"outs: [{out}]\n")
    assert told(project.pulled())[0][1:] == ("ok", f"data/ is pulled, {size(sum(sizes))}")
    (tmp_path / "data/manifest.json").write_text("{}")
    (finding,) = project.pulled()
    assert (finding.state, finding.advice) == ("note", "dvc pull data.dvc --force")
    shutil.rmtree(tmp_path / "data")
    assert told(project.pulled()) == [("data.dvc", "note", "data/ is not pulled")]
    assert brief()[2].startswith("data: data/ is not pulled: dvc pull data.dvc; datasets/ holds no")


# What the experiments want


def test_data_sets(tmp_path: Path) -> None:
    params = Path("params.yaml")
    write_params(tmp_path, {"a": {}, "b": {"dataset.name": "cifar10"}})
    found = states(experiments.data_sets(params))
    assert found["data cifar10"] == ("problem", "missing")
    assert found["data embedded"][0] == "problem"
    assert "dvc pull data.dvc" in found["data embedded"][1]
    assert "cifar100" in found["other data"][1]
    assert "cifar10," not in found["other data"][1]

    write_data(tmp_path)
    (tmp_path / "datasets/cifar10").mkdir(parents=True)
    (tmp_path / "datasets/imagenet.manifest.json").touch()
    found = states(experiments.data_sets(params))
    assert found["data embedded"] == ("ok", "here, checked")
    assert found["data cifar10"] == ("note", "here, not checked yet")
    assert found["data imagenet"] == ("ok", "here, checked")
    assert brief()[2] == "data: datasets/ holds imagenet"

    image = next((tmp_path / "data").glob("train-images*"))
    image.write_bytes(image.read_bytes()[:-1])
    write_params(tmp_path, {"b": {"dataset.name": "cifer10"}})
    found = states(experiments.data_sets(params))
    assert found["data cifer10"] == ("problem", "no such data set")
    assert found["data embedded"][0] == "note"  # nothing here wants it
    assert "truncated" in found["data embedded"][1]


def test_experiments(tmp_path: Path) -> None:
    params = Path("params.yaml")
    (finding,) = experiments.experiments(params, 0)
    assert (finding.state, finding.found) == ("problem", "params.yaml: not found")
    write_params(tmp_path, {"a": {}, "b": {"device": "cuda"}, "c": {"device": "cuda"}})
    (finding,) = experiments.experiments(params, 0)
    assert finding.state == "problem"
    assert finding.found == "device: cuda in b, c of params.yaml, and torch finds no GPU"
    assert experiments.experiments(params, 1)[0].state == "ok"
    params.write_text("experiments: {a: {devise: cpu}}")
    assert "devise" in experiments.experiments(params, 1)[0].found
