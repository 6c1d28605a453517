"""Tables of one pipeline: what they show of runs that differ, ail or are missing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from report import samples
from steadyspike.report.comparison import ACCURACY, comparison
from steadyspike.report.figures import training
from steadyspike.report.results import Results
from steadyspike.report.steps import steps_figure
from steadyspike.report.table import NOT_RUN, Column, Table
from steadyspike.report.tables import experiments, operations, table2, table4
from steadyspike.train.params import merge


def report(folder: Path) -> dict[str, Any]:
    """The JSON of every table of a pipeline's report."""
    results = Results.of_pipeline(folder)
    made = [make(results) for make in (table2, table4, operations, experiments)]
    return {table.name: json.loads(table.to_json()) for table in made}


def column(table: dict[str, Any], key: str) -> dict[str, Any]:
    """The values of one column by experiment."""
    return {row["experiment"]: row[key] for row in table["rows"]}


def set_params(folder: Path, **experiments: dict[str, Any]) -> None:
    """Change some experiments, in params.yaml and in what was measured."""
    changed = {
        name: merge(own, experiments.get(name, {})) for name, own in samples.EXPERIMENTS.items()
    }
    samples.write_params(folder, changed)
    for name in experiments:
        samples.write_run(folder, name)


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return samples.write_pipeline(tmp_path)


def test_the_three_forms_hold_the_same_numbers() -> None:
    table = Table(
        "t",
        "Title",
        [
            Column("name", "Name", code=True),
            Column("x", "X, %", 2),
            Column("d", "D", 1, False, True),
        ],
        [["a", 1.005, -0.3], ["b", -0.001, 0.04], ["c", NOT_RUN, ""]],
        notes=["A *note*."],
        commands=["dvc repro"],
    )
    assert table.to_csv() == "name,x,d\na,1.00,-0.3\nb,0.00,0.0\nc,not run,\n"
    assert json.loads(table.to_json())["rows"] == [
        {"name": "a", "x": 1.0, "d": -0.3},
        {"name": "b", "x": 0.0, "d": 0.0},
        {"name": "c", "x": "not run", "d": ""},
    ]
    text = table.to_markdown()
    assert text.startswith("# Title\n\n| Name")
    for row in ("| `a`    |      1.00 | −0.3 |", "| `b`    |      0.00 | +0.0 |"):
        assert row in text
    assert "| *not run* |" in text
    assert text.endswith("A \\*note\\*.\n\nTo run what has not been run:\n\n    dvc repro\n")


def test_what_was_not_run_says_so_and_is_never_filled_in(tmp_path: Path) -> None:
    tables = report(samples.write_pipeline(tmp_path, leave_out=("linear", "osr")))
    for name in ("linear", "osr"):
        for key in ("accuracy_last", "accuracy_best", "gross_firing_rate"):
            assert column(tables["table4"], key)[name] == NOT_RUN
        assert column(tables["table2"], "gross_firing_rate")[name] == NOT_RUN
        assert name not in column(tables["operations"], "energy")
    for key in ("table2", "table4"):
        assert tables[key]["commands"] == ["dvc repro evaluate@osr", "dvc repro evaluate@linear"]


def test_operations_experiments_and_the_nearest_setting_of_the_paper(pipeline: Path) -> None:
    tables = report(pipeline)
    assert tables["operations"]["rows"][0] == {
        "method": "vanilla BN",
        "experiment": "per_step",
        "synaptic_operations": 1.235,
        "multiply_accumulates": 0.903,
        "energy": 5.265,
        "dense_multiply_accumulates": 9.877,
    }
    assert column(tables["experiments"], "osr_fallbacks")["osr"] == 7
    assert column(tables["experiments"], "parameters")["osr"] == 2312842
    table = tables["table4"]
    assert column(table, "paper_setting")["osr"] == "CIFAR-10, VGGSNN"
    assert column(table, "paper")["ots"] == "not reported"
    assert any("another data set or network" in note for note in table["notes"])
    assert all("difference" not in row for row in table["rows"])


@pytest.mark.parametrize(
    ("change", "key", "values"),
    [
        ({"evaluation": {"steps": 6}}, "steps", (6, 4)),
        ({"evaluation": {"batch": 50}}, "batch", (50, 100)),
        (
            {"training": {"online_update": True, "chunk": 1}},
            "update",
            ("each step", "each batch"),
        ),
        ({"model": {"inference_threshold": "fixed"}}, "threshold", ("fixed", "live")),
        ({"model": {"name": "resnet19", "widths": [8]}}, "network", ("ResNet-19", "VGGSNN")),
        ({"dataset": {"name": "cifar10"}}, "dataset", ("CIFAR-10", "Fashion-MNIST 6k")),
    ],
)
def test_runs_that_were_not_measured_alike_show_it(
    pipeline: Path, change: dict[str, Any], key: str, values: tuple[Any, Any]
) -> None:
    # The inference threshold makes no difference without OTS.
    set_params(pipeline, osr={"model": {"inference_threshold": "fixed"}})
    alike = report(pipeline)
    set_params(pipeline, osr_ots=change)
    tables = report(pipeline)
    for name in ("table2", "table4", "operations"):
        found = column(tables[name], key)
        assert (found["osr_ots"], found["ots"]) == values
        assert all(key not in row for row in alike[name]["rows"])


def test_the_gap_is_that_of_the_first_step(pipeline: Path) -> None:
    table = report(pipeline)["table4"]
    assert column(table, "first_step")["ots"] == 13.0
    assert column(table, "gap")["ots"] == 18.0
    assert column(table, "gap")["bptt"] == 0.0


def test_seeds_become_mean_and_deviation(pipeline: Path) -> None:
    samples.write_run(pipeline, "osr", [(94.0, 94.1), (94.2, 94.5), (94.4, 94.3)])
    row = next(row for row in report(pipeline)["table4"]["rows"] if row["experiment"] == "osr")
    # By hand: deviations -0.2, 0, 0.2 and -0.2, 0.2, 0, over n - 1 = 2.
    assert (row["accuracy_last"], row["accuracy_last_std"]) == (94.2, 0.2)
    assert (row["accuracy_best"], row["accuracy_best_std"]) == (94.3, 0.2)


SEEDS = {
    "per_step": [(80.0, 80.0), (82.0, 82.0), (81.0, 81.0)],
    "osr": [(81.0, 81.0), (83.1, 83.1), (81.9, 81.9)],  # +1, +1.1, +0.9
    "ots": [(79.0, 79.0), (83.0, 83.0), (81.5, 81.5)],  # -1, +1, +0.5
    "bptt": [(70.0, 70.0)],
}


def test_a_verdict_needs_the_whole_interval(pipeline: Path) -> None:
    for name, accuracies in SEEDS.items():
        samples.write_run(pipeline, name, accuracies)
    table = comparison(Results.of_pipeline(pipeline))
    rows = {
        row["experiment"]: row
        for row in json.loads(table.to_json())["rows"]
        if row["quantity"] == ACCURACY.name
    }
    assert list(rows) == ["per_step", "ots", "osr"]  # those with one seed are left out
    # By hand: s = 1, t(2) = 4.303, 4.303 / √3 = 2.48
    assert (rows["per_step"]["mean"], rows["per_step"]["low"]) == (81.0, 78.52)
    assert rows["per_step"]["verdict"] == rows["per_step"]["difference"] == ""
    # Differences of s = 0.1: 0.248 about 1
    low, high = rows["osr"]["difference_low"], rows["osr"]["difference_high"]
    assert (rows["osr"]["difference"], low, high) == (1.0, 0.75, 1.25)
    assert rows["osr"]["verdict"] == "more accurate"
    assert rows["ots"]["difference_low"] < 0 < rows["ots"]["difference_high"]
    assert rows["ots"]["verdict"] == "no difference shown"


def test_without_vanilla_bn_the_papers_method_is_the_baseline(tmp_path: Path) -> None:
    samples.write_params(tmp_path, {name: samples.EXPERIMENTS[name] for name in ("osr", "osr_ots")})
    samples.write_run(tmp_path, "osr_ots", SEEDS["per_step"])
    samples.write_run(tmp_path, "osr", SEEDS["osr"])
    table = comparison(Results.of_pipeline(tmp_path))
    assert [c.header for c in table.columns if "OSR" in c.header] == [
        "Less OSR + OTS’s",
        "Than OSR + OTS",
    ]
    (ours,) = (
        row
        for row in json.loads(table.to_json())["rows"]
        if (row["quantity"], row["experiment"]) == (ACCURACY.name, "osr")
    )
    assert (ours["difference"], ours["verdict"]) == (1.0, "more accurate")


def test_one_seed_has_the_test_sets_error_alone(pipeline: Path) -> None:
    assert not comparison(Results.of_pipeline(pipeline)).rows
    # 1.96 √(0.71204 * 0.28796 / 1000) = 0.02807
    assert column(report(pipeline)["table4"], "test_error")["per_step"] == 2.81


def test_every_seed_is_in_the_figures_data(pipeline: Path) -> None:
    set_params(pipeline, osr={"seeds": [0, 8]})
    (pipeline / "runs" / "osr" / "seeds" / "8").mkdir(parents=True)
    rows = samples.history("osr")
    samples.write_csv(pipeline / "runs" / "osr" / "seeds" / "8" / "history.csv", rows)
    results = Results.of_pipeline(pipeline)
    for figure in (training(results), steps_figure(results)):
        assert figure is not None
        found = csv.DictReader(figure.data[0].to_csv().splitlines())
        assert {row["seed"] for row in found if row["experiment"] == "osr"} == {"0", "8"}


def test_the_papers_number_stands_beside_what_the_paper_ran_alone(pipeline: Path) -> None:
    model = samples.EXPERIMENTS["osr_ots"]["model"]
    added = {
        "slow": {"model": model, "training": {"learning_rate": 0.01}},
        "seeds": {"model": model, "seeds": [3]},
        "warm": {"model": model | {"warm_up_statistics": True}},
        "light": {"model": model, "training": {"weight_decay": 0.0}},
    }
    samples.write_params(pipeline, samples.EXPERIMENTS | added)
    for name in added:
        samples.write_run(pipeline, name)
    for table, value in (("table4", 94.35), ("table2", 16.06)):
        found = column(report(pipeline)[table], "paper")
        assert found["osr_ots"] == found["seeds"] == found["light"] == value
        assert found["slow"] == found["warm"] == "not reported"


def test_two_experiments_of_one_method_are_told_apart(tmp_path: Path) -> None:
    twins: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {"model": {"name": "resnet19"}}}
    twins["c"]["model"]["widths"] = [8]
    samples.write_params(tmp_path, twins)
    for name in twins:
        samples.write_run(tmp_path, name)
    labels = {run.label for run in Results.of_pipeline(tmp_path).only.runs}
    assert labels == {"OSR (a)", "OSR (b)", "OSR, ResNet-19"}


# The third convolution comes behind a pooling.
SILENT = {2: "features.3", 3: "features.3 features.4", 4: "features.3", 7: "features.3"}


def test_layers_that_fell_silent_or_exploded(pipeline: Path) -> None:
    assert not any("layers" in note for note in report(pipeline)["table4"]["notes"][1:])
    set_params(pipeline, osr={"seeds": [0, 8]})
    home = pipeline / "runs" / "osr"
    rows = samples.history("osr")
    for epoch, names in SILENT.items():
        rows[epoch - 1]["silent_layers"] = names
    (home / "seeds" / "8").mkdir(parents=True)
    samples.write_csv(home / "seeds" / "8" / "history.csv", rows)
    rows[10]["exploding_layers"] = " ".join(f"features.{place}.norm" for place in samples.PLACES)
    samples.write_csv(home / "history.csv", rows)
    silence = (
        "silent layers (no spike in a whole epoch of training) in epochs 2–4, 7: conv 3, conv 4."
    )
    tables = report(pipeline)
    for name in ("table2", "table4"):
        own, exploded, other = (note for note in tables[name]["notes"] if note.startswith("osr"))
        assert (own, other) == (f"osr: {silence}", f"osr, seed 8: {silence}")
        assert exploded.endswith(
            " in epoch 11: conv 1, conv 2, conv 3, conv 4, conv 5, conv 6 and 2 more."
        )
    figure = training(Results.of_pipeline(pipeline))
    assert figure is not None
    drawn = csv.DictReader(figure.data[0].to_csv().splitlines())
    found = {int(row["epoch"]): row["silent_layers"] for row in drawn if row["silent_layers"]}
    plain = {"features.3": "conv 3", "features.3 features.4": "conv 3, conv 4"}
    assert found == {epoch: plain[layers] for epoch, layers in SILENT.items()}
