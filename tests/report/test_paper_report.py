"""The joined tables, figures and page, from made-up runs of the real pipelines."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
import yaml
from page_reader import check_alone, read

from steadyspike.errors import UserError
from steadyspike.report import list_cells, write_paper_report
from steadyspike.report.cells import cells
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.tables import Column, Mean, Table
from steadyspike.train.params import read_yaml
from tiny import read_json


def metrics_of(pipelines: Path, run: str) -> dict[str, Any]:
    pipeline, experiment = run.split("/")
    content: dict[str, Any] = read_json(pipelines / pipeline / "runs" / experiment / "metrics.json")
    return content


def accuracy(last: float, best: float) -> dict[str, Any]:
    return {"last": last, "best": best, "best_epoch": 3}


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Three of the experiments, and Figure 2a."""
    pipelines = samples.copy_pipelines(tmp_path / "pipelines")
    params = pipelines / "cifar10" / "params.yaml"
    document = read_yaml(params)
    document["experiments"]["vggsnn-osr_ots"]["seeds"] = [0, 1, 2]
    params.write_text(yaml.safe_dump(document, sort_keys=False))
    seeds = {"0": accuracy(94.0, 94.1), "1": accuracy(94.2, 94.5), "2": accuracy(94.4, 94.3)}
    samples.write_paper_run(pipelines, "cifar10/vggsnn-osr_ots", accuracy=seeds["0"], seeds=seeds)
    samples.write_paper_run(pipelines, "cifar10/vggsnn-per_step", accuracy=accuracy(92.0, 92.3))
    samples.write_paper_run(
        pipelines,
        "imagenet/sew_resnet34-osr_ots",
        accuracy=accuracy(63.9, 64.0),
        inference={"live": 63.9, "fixed": 63.5, "batch_1": 62.0},
    )
    samples.write_memory(pipelines / "cifar10")
    return pipelines


def rows(out: Path, table: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((out / f"{table}.json").read_text())["rows"]
    return content


def test_seeds_become_mean_deviation_and_count(some: Path, tmp_path: Path) -> None:
    write_paper_report(some, tmp_path / "out")
    for table in ("table1", "table4"):
        row = next(
            r for r in rows(tmp_path / "out", table) if r["experiment"] == "cifar10/vggsnn-osr_ots"
        )
        # By hand: deviations -0.2, 0, 0.2 and -0.2, 0.2, 0, over n - 1 = 2.
        assert (row["last"], row["last_std"]) == (94.2, 0.2)
        assert (row["best"], row["best_std"]) == (94.3, 0.2)
        assert (row["paper"], row["difference"]) == (94.35, -0.05)
        assert (row["seeds"], row["epochs"]) == (3, 300)
    text = (tmp_path / "out" / "table4.md").read_text()
    assert "| 94.35 | 94.20 ± 0.20 | 94.30 ± 0.20 | −0.05 | 3 | 300 |" in text
    with (tmp_path / "out" / "table4.csv").open() as file:
        (line,) = (r for r in csv.DictReader(file) if r["experiment"] == "cifar10/vggsnn-per_step")
    assert (line["last"], line["last_std"], line["difference"]) == ("92.00", "", "-0.30")


def test_appendix_and_rates_of_the_last_weights(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_paper_report(some, out)
    linear, fixed, alone = rows(out, "appendix_e")
    assert (linear["last"], linear["difference"]) == ("not run", "")
    assert (fixed["last"], fixed["best"], fixed["difference"]) == (63.5, "not measured", -0.56)
    assert (alone["last"], alone["paper"], alone["difference"]) == (62.0, 62.64, -0.64)
    rates = {row["method"]: row for row in rows(out, "table2")}
    own = metrics_of(some, "imagenet/sew_resnet34-osr_ots")["firing_rate"]
    assert rates["OSR + OTS"]["ours"] == pytest.approx(100 * own["gross"], abs=0.006)
    assert rates["OTTT"]["source"] == "Xiao et al. 2022"
    (steps,) = (row for row in rows(out, "figure2b") if row["method"] == "OSR + OTS")
    measured = [steps[f"ours_{step}"] for step in range(1, 5)]
    assert measured == pytest.approx([100 * rate for rate in own["per_step"]], abs=0.006)
    assert [steps[f"paper_{step}"] for step in range(1, 5)] == [17, 16, 16, 16]


def test_what_was_not_run_is_never_filled_from_the_paper(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_paper_report(some, out)
    done = {cell.run for cell in cells() if Reproduction(some).done(cell)}
    for table in ("table1", "table4", "appendix_e"):
        content = json.loads((out / f"{table}.json").read_text())
        for row in content["rows"]:
            if row.get("source"):
                assert (row["last"], row["best"]) == ("quoted", "quoted")
            elif row["experiment"] not in done:
                assert (row["last"], row["best"], row["difference"]) == ("not run", "not run", "")
                pipeline, experiment = row["experiment"].split("/")
                command = f"dvc --cd pipelines repro report@{pipeline}-{experiment}"
                assert command in content["commands"]
    nothing = samples.copy_pipelines(tmp_path / "nothing")
    write_paper_report(nothing, tmp_path / "none")
    for row in rows(tmp_path / "none", "figure2a"):
        assert (row["online"], row["bptt"]) == ("not run", "not run")
    for name in ("figure2a", "figure2b", "figure3"):
        svg = (tmp_path / "none" / f"{name}.svg").read_text()
        assert "not run" in svg
        assert "dvc --cd pipelines repro " in svg


def test_a_run_unlike_the_papers_is_told(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert Reproduction(some).remarks("table1") == []
    path = some / "cifar10" / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 300", "epochs: 3"))
    shutil.rmtree(some / "cifar10" / "runs" / "vggsnn-per_step")
    shutil.rmtree(some / "cifar10" / "runs" / "vggsnn-osr_ots")
    samples.write_paper_run(some, "cifar10/vggsnn-osr_ots")
    write_paper_report(some, out)
    notes = json.loads((out / "table1.json").read_text())["notes"]
    assert (
        "cifar10/vggsnn-osr_ots is not as in the paper: training.epochs 3 instead of 300." in notes
    )
    assert Reproduction(some).remarks("figure2a") == []  # epochs do not change memory
    row = next(r for r in rows(out, "table1") if r["experiment"] == "cifar10/vggsnn-osr_ots")
    assert row["epochs"] == 3


def test_a_short_run_cannot_pass_for_a_long_one(some: Path, tmp_path: Path) -> None:
    """Whatever params.yaml says."""
    history = some / "cifar10" / "runs" / "vggsnn-osr_ots" / "history.csv"
    samples.write_csv(history, samples.history("vggsnn-osr_ots", 3))
    write_paper_report(some, tmp_path / "out")
    row = next(
        r for r in rows(tmp_path / "out", "table1") if r["experiment"] == "cifar10/vggsnn-osr_ots"
    )
    assert row["epochs"] == 3


def test_figures_show_both_the_papers_lines_and_ours(some: Path, tmp_path: Path) -> None:
    write_paper_report(some, tmp_path / "out")
    ours = rows(tmp_path / "out", "figure2a")
    assert [row["steps"] for row in ours] == paper_steps()
    assert {row["online"] for row in ours} == {61.2}
    assert (ours[0]["bptt_paper"], ours[-1]["bptt_paper"]) == (3500, 21000)
    svg = (tmp_path / "out" / "figure2b.svg").read_text()
    assert svg.count("OSR + OTS") >= 1
    assert "s-amber" in svg, "the paper's line of a method that was not run here"
    assert "Highest minus lowest step, in points: OSR + OTS" in svg


def paper_steps() -> list[int]:
    return [2, 4, 6, 8, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("run", [True, False])
def test_the_page_is_well_formed_and_stands_alone(run: bool, some: Path, tmp_path: Path) -> None:
    pipelines = some if run else samples.copy_pipelines(tmp_path / "nothing")
    written = write_paper_report(pipelines, tmp_path / "out")
    page = read(tmp_path / "out" / "index.html")
    check_alone(page, written)
    assert page.tags.count("table") == page.tags.count("caption") == 6
    assert page.tags.count("svg") == 3
    assert ("12 of 39" if run else "0 of 39") in page.text
    assert "quoted from Zheng et al. 2021" in page.text
    for command in {cell.command for cell in cells()}:
        assert (command in page.text) != (command in done_commands(pipelines))


def done_commands(pipelines: Path) -> set[str]:
    work = Reproduction(pipelines)
    return {cell.command for cell in cells() if work.done(cell)}


def test_the_same_runs_give_the_same_bytes(some: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(some, tmp_path / "another" / "place")
    first = write_paper_report(some, tmp_path / "a")
    second = write_paper_report(twin, tmp_path / "b")
    assert [path.name for path in first] == [path.name for path in second]
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes()


def test_the_list_has_a_line_for_each_cell(some: Path) -> None:
    header, *lines = list_cells(some)
    assert header.split() == ["TABLE", "ROW", "COLUMN", "STATE", "COMMAND"]
    place = header.index("STATE")
    work = Reproduction(some)
    for line, cell in zip(lines, cells(), strict=True):
        assert line[place:].startswith("run  " if work.done(cell) else "not run  ")
        assert line[header.index("COMMAND") :] == cell.command


def test_malformed_measurements_write_nothing(some: Path, tmp_path: Path) -> None:
    path = some / "cifar10" / "runs" / "vggsnn-osr_ots" / "metrics.json"
    content = metrics_of(some, "cifar10/vggsnn-osr_ots")
    for key, value in (("seeds", {"0": accuracy(1, 2)}), ("inference", {"live": "much"})):
        path.write_text(json.dumps(content | {key: value}))
        with pytest.raises(UserError, match=rf"metrics\.json: {key}"):
            write_paper_report(some, tmp_path / "out")
    path.unlink()
    (some / "imagenet" / "params.yaml").unlink()
    with pytest.raises(UserError, match=r"imagenet/params\.yaml: not found"):
        write_paper_report(some, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_means_and_signs_in_the_three_forms() -> None:
    columns = [
        Column("mean", "Mean", decimals=1, means=True),
        Column("change", "Change", decimals=1, signed=True),
    ]
    table = Table("t", "T", columns, [[Mean(1.25, 0.04), -0.3], ["not run", 0.04], [Mean(2), ""]])
    assert table.to_csv() == "mean,mean_std,change\n1.2,0.0,-0.3\nnot run,,0.0\n2.0,,\n"
    assert json.loads(table.to_json())["rows"] == [
        {"mean": 1.2, "mean_std": 0.0, "change": -0.3},
        {"mean": "not run", "mean_std": None, "change": 0.0},
        {"mean": 2.0, "mean_std": None, "change": ""},
    ]
    assert "| 1.2 ± 0.0 | −0.3 |\n| *not run* | ±0.0 |\n| 2.0 |  |" in table.to_markdown()
