"""What was not measured alike does not stand in one table: a line says why, and what mends it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Evaluation
from steadyspike.report import list_cells, write_paper_report, write_report
from steadyspike.train.params import merge
from tiny import change_json, one_line

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the current folder, as the command has it."""
    monkeypatch.chdir(samples.write_pipeline(tmp_path, leave_out=("linear",)))
    return Path()


def change(run: str, file: str, change: Change) -> None:
    change_json(Path("runs", run, file), change)


def set_params(**experiments: dict[str, Any]) -> None:
    """The same in params.yaml and in what was measured, so that the params are those that ran."""
    changed = {
        name: merge(own, experiments.get(name, {})) for name, own in samples.EXPERIMENTS.items()
    }
    samples.write_params(Path(), changed)
    for name in experiments:
        samples.write_run(Path(), name)


def refused(*words: str) -> str:
    with pytest.raises(UserError) as caught:
        write_report(Path(), Path("out"))
    assert not Path("out").exists()
    return one_line(caught.value, *words)


def test_all_alike_is_written(pipeline: Path) -> None:
    assert write_report(pipeline, Path("out"))


# Within one pipeline


def test_different_data_sets(pipeline: Path) -> None:
    set_params(osr={"dataset": {"name": "cifar10"}})
    refused(
        "runs/osr/metrics.json: dataset.name: ",
        "of embedded and cifar10: give one of them a pipeline of its own",
    )


def test_a_data_set_that_was_not_run_is_not_mixed(pipeline: Path) -> None:
    set_params(osr={"dataset": {"name": "cifar10"}})
    shutil.rmtree("runs/osr")
    assert write_report(pipeline, Path("out"))


def test_different_batches(pipeline: Path) -> None:
    set_params(osr={"evaluation": {"batch": 50}})
    refused(
        "runs/per_step/metrics.json and runs/osr/metrics.json: evaluation.batch: ",
        "found 100 and 50: give both the same evaluation.batch in params.yaml, then "
        "`dvc repro evaluate@per_step evaluate@osr`",
    )


def test_different_thresholds(pipeline: Path) -> None:
    set_params(osr_ots={"model": {"inference_threshold": "fixed"}})
    refused(
        "runs/ots/metrics.json and runs/osr_ots/metrics.json: evaluation.threshold: ",
        "found live and fixed: give both the same model.inference_threshold in params.yaml",
    )


def test_the_threshold_of_a_network_without_ots_is_no_difference(pipeline: Path) -> None:
    set_params(osr={"model": {"inference_threshold": "fixed"}})
    assert write_report(pipeline, Path("out"))


def test_different_steps_are_shown(pipeline: Path) -> None:
    write_report(pipeline, Path("alike"))
    set_params(osr={"evaluation": {"steps": 6}})
    write_report(pipeline, Path("out"))
    for table in ("table2", "table4"):
        rows = json.loads(Path("out", f"{table}.json").read_text())["rows"]
        steps = {row["experiment"]: row["steps"] for row in rows}
        assert (steps["osr"], steps["ots"], steps["linear"]) == (6, 4, 4)
        alike = json.loads(Path("alike", f"{table}.json").read_text())["rows"]
        assert all("steps" not in row for row in alike)


# Of the experiment that params.yaml has now


def test_other_parameters_than_params_yaml_has(pipeline: Path) -> None:
    changed = samples.EXPERIMENTS | {
        "osr": merge(samples.EXPERIMENTS["osr"], {"model": {"tau": 3.0}})
    }
    samples.write_params(pipeline, changed)
    before = samples.settings("osr").fingerprint()[:12]
    refused(
        f"runs/osr/digests.json: fingerprint: run with {before}, but params.yaml has ",
        "`dvc repro evaluate@osr` trains and measures anew, or remove runs/osr, and it counts as "
        "not run",
    )
    shutil.rmtree("runs/osr")
    assert write_report(pipeline, Path("out"))


def test_another_seed_is_another_experiment(pipeline: Path) -> None:
    """Its number is missing from the mean."""
    changed = samples.EXPERIMENTS | {"osr": samples.EXPERIMENTS["osr"] | {"seeds": [0, 1]}}
    samples.write_params(pipeline, changed)
    refused("runs/osr/metrics.json: seeds: run with [0], but params.yaml has [0, 1] now: ")


def test_what_moves_work_about_may_change(pipeline: Path) -> None:
    changed = samples.EXPERIMENTS | {
        "osr": merge(samples.EXPERIMENTS["osr"], {"device": "cuda", "training": {"chunk": 1}})
    }
    samples.write_params(pipeline, changed)
    assert write_report(pipeline, Path("out"))


@pytest.mark.parametrize(("key", "value"), [("batch", 7), ("steps", 7), ("threshold", "fixed")])
def test_other_settings_than_params_yaml_has(pipeline: Path, key: str, value: object) -> None:
    change("osr_ots", "metrics.json", lambda content: content["evaluation"].update({key: value}))
    expected = getattr(Evaluation.of(samples.settings("osr_ots")), key)
    refused(
        f"runs/osr_ots/metrics.json: evaluation.{key}: run with {value}, but params.yaml has "
        f"{expected} now: `dvc repro evaluate@osr_ots`"
    )


def test_curves_of_nobody_knows_what(pipeline: Path) -> None:
    Path("runs/osr/digests.json").unlink()
    refused("runs/osr/history.csv: digests.json, which says what it is of, is not beside it")
    Path("runs/osr/history.csv").unlink()
    refused("runs/osr/metrics.json: digests.json, which says what it is of, is not beside it")


def test_membranes_count_as_not_run_without_the_metrics_that_say_of_what(pipeline: Path) -> None:
    Path("runs/osr_ots/metrics.json").unlink()
    write_report(pipeline, Path("out"))
    assert "not run" in Path("out/figure3.svg").read_text()


@pytest.mark.parametrize(
    ("damage", "key"),
    [
        (lambda d: d.update(batches={"1": {"w": "<b>"}}), "batches.1.w"),
        (lambda d: d.update(weights_sha256="<b>"), "weights_sha256"),
        (lambda d: d.pop("fingerprint"), "fingerprint"),
    ],
)
def test_malformed_digests(pipeline: Path, damage: Change, key: str) -> None:
    change("osr", "digests.json", damage)
    refused("runs/osr/digests.json: ", key)


# The paper's tables


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pipelines = samples.copy_pipelines(Path("pipelines"))
    for run in ("cifar10/vggsnn-osr_ots", "cifar10/vggsnn-per_step", "cifar100/vggsnn-osr_ots"):
        samples.write_paper_run(pipelines, run)
    return pipelines


def refused_paper(*words: str) -> None:
    with pytest.raises(UserError) as caught:
        write_paper_report(Path("pipelines"), Path("out"))
    assert not Path("out").exists()
    one_line(caught.value, *words)


def rerun(run: str, before: str, after: str) -> None:
    """A run of its pipeline's changed params.yaml."""
    pipeline, experiment = run.split("/")
    path = Path("pipelines", pipeline, "params.yaml")
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    shutil.rmtree(path.parent / "runs" / experiment)
    samples.write_paper_run(Path("pipelines"), run)


def test_data_sets_each_with_its_data_and_batch(paper: Path) -> None:
    rerun("cifar100/vggsnn-osr_ots", "    batch: 128                 # OTS", "    batch: 50 # OTS")
    assert write_paper_report(paper, Path("out"))


def test_thresholds_of_different_data_sets(paper: Path) -> None:
    rerun("cifar100/vggsnn-osr_ots", "inference_threshold: live", "inference_threshold: fixed")
    refused_paper(
        "pipelines/cifar10/runs/vggsnn-osr_ots/metrics.json and "
        "pipelines/cifar100/runs/vggsnn-osr_ots/metrics.json: evaluation.threshold: ",
        "in pipelines/cifar10/params.yaml and pipelines/cifar100/params.yaml, then "
        "`dvc --cd pipelines repro evaluate@cifar10-vggsnn-osr_ots && "
        "dvc --cd pipelines repro evaluate@cifar100-vggsnn-osr_ots`",
    )


def test_a_row_of_another_data_set(paper: Path) -> None:
    rerun("cifar100/vggsnn-osr_ots", "name: cifar100", "name: cifar10")
    refused_paper(
        "pipelines/cifar100/params.yaml: experiments.vggsnn-osr_ots.dataset.name: expected "
        "'cifar100', the data set of its row in the paper's Table 1, got 'cifar10': remove "
        "pipelines/cifar100/runs/vggsnn-osr_ots, and it counts as not run"
    )


def test_what_is_outdated_is_refused_and_listed(paper: Path) -> None:
    path = paper / "cifar100" / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 300", "epochs: 3"))
    refused_paper(
        "pipelines/cifar100/runs/vggsnn-osr_ots/digests.json: fingerprint: ",
        "`dvc --cd pipelines repro evaluate@cifar100-vggsnn-osr_ots`",
    )
    lines = [line for line in list_cells(paper) if "CIFAR-100, VGGSNN, OSR + OTS" in line]
    assert lines
    assert all("  outdated  " in line for line in lines)
    assert sum("  run  " in line for line in list_cells(paper)) > 0
