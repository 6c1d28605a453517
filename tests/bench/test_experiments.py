"""`steadyspike bench --experiments`, and its table in the pipeline's report."""

import json
from pathlib import Path

import pytest

from bench.made_up import bench as made_up
from report import samples
from steadyspike.bench import experiments
from steadyspike.bench.records import ExperimentsBench
from steadyspike.report import write_report
from tiny import in_process, read_json, refused, write_data, write_params

WAYS = {
    "per_step": {"model.norm": "per_step", "model.stabilize_threshold": False},
    "light": {"training.weight_decay": 0.0},
    "light_again": {"training.weight_decay": 0.1, "training.epochs": 9, "seeds": [4]},
    "small_calls": {"training.chunk": 1},
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(experiments, "TURNS", 2)
    monkeypatch.setattr(experiments, "BATCHES", 1)
    write_data(tmp_path)
    return tmp_path


def test_each_that_differs_in_speed_is_measured_in_turns(project: Path) -> None:
    write_params(project, WAYS, **{"training.batch": 4, "model.dropout": 0.0})
    result = in_process(project, "bench", "--experiments", "params.yaml")
    assert (result.returncode, result.stdout) == (0, "bench.json\n"), result.stderr
    assert result.stderr.endswith("turn 2 of 2\n")
    bench = ExperimentsBench.model_validate(read_json(project / "bench.json"))
    measured = {each.experiment: each for each in bench.experiments}
    assert list(measured) == ["per_step", "light", "small_calls"]
    for each in measured.values():
        assert len(each.seconds) == 2
        assert min(each.seconds) > 0
        assert each.batches == 15
    # One step's activations instead of four's; the small rest is the same in both.
    kept = measured["small_calls"].kept_bytes / measured["light"].kept_bytes
    assert 0.2 < kept < 0.5


def test_what_cannot_be_measured(project: Path) -> None:
    def refuses(message: str) -> None:
        refused(in_process(project, "bench", "--experiments", "params.yaml"), message)
        assert not (project / "bench.json").exists()

    write_params(project, {})
    refuses(r"params\.yaml: experiments: expected at least one experiment$")
    write_params(project, {"a": {}, "b": {"dataset.augmentation": "none"}})
    refuses(r"params\.yaml: dataset: expected the same in all experiments$")
    write_params(project, {"a": {}, "b": {"device": "cuda"}})
    refuses(r"params\.yaml: device: expected the same in all experiments$")
    experiments.BATCHES = 2  # the fixture restores it
    write_params(project, {"a": {"training.batch": 4}})
    refuses(r"a: training\.batch: an epoch has 15 batches, expected at least 17$")


def test_the_report_shows_it(tmp_path: Path) -> None:
    samples.write_params(tmp_path)
    where = json.loads(made_up().model_dump_json(include={"date", "commit", "machine", "versions"}))
    rows = [
        {"experiment": "per_step", "seconds": [0.1, 0.2, 0.4], "batches": 50, "kept_bytes": 10**6},
        {"experiment": "osr_ots", "seconds": [0.1, 0.1, 0.1], "batches": 50, "kept_bytes": 10**7},
        {"experiment": "gone", "seconds": [9.0], "batches": 50, "kept_bytes": 1},
    ]
    (tmp_path / "bench.json").write_text(json.dumps({**where, "experiments": rows}))
    write_report(tmp_path, tmp_path / "out")
    header, vanilla, ours = (tmp_path / "out" / "speed.csv").read_text().splitlines()
    assert header == "method,update,experiment,epoch,batch,ratio,kept"
    assert vanilla == "vanilla BN,each batch,per_step,10.0,200.0,1.00,1.00"
    assert ours == "OSR + OTS,each batch,osr_ots,5.0,100.0,0.50 (0.25 to 1.00),10.00"
    text = (tmp_path / "out" / "speed.md").read_text()
    assert "A processor, 2 of 2 cores, AVX2, steadyspike 0.1.0" in text
