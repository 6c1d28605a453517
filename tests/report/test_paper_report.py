"""The report of all the paper's cells, from made-up runs of the real pipelines."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples
from page_reader import check_alone, read

from steadyspike.errors import UserError
from steadyspike.report import list_cells, write_paper_report, write_report
from steadyspike.report.paper import own_cells
from steadyspike.report.results import Results


def accuracy(last: float, best: float) -> dict[str, Any]:
    return {"last": last, "best": best, "best_epoch": 3}


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """Three of the experiments, and Figure 2a."""
    pipelines = samples.copy_pipelines(tmp_path / "pipelines")
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


def rows(out: Path, table: str) -> list[dict[str, str]]:
    with (out / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def row(out: Path, table: str, run: str) -> dict[str, str]:
    return next(row for row in rows(out, table) if row["experiment"] == run)


def test_differences_seeds_and_epochs(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_paper_report(some, out)
    for table in ("table1", "table4"):
        cells = row(out, table, "cifar10/vggsnn-osr_ots")
        assert (cells["accuracy_last"], cells["accuracy_best"]) == ("94.20", "94.30")
        assert (cells["paper"], cells["difference"]) == ("94.35", "-0.05")
        assert (cells["seeds"], cells["epochs"]) == ("3", "300")
    assert row(out, "table4", "cifar10/vggsnn-per_step")["difference"] == "-0.30"
    assert "−0.05" in (out / "table4.md").read_text()


def test_appendix_and_rates(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_paper_report(some, out)
    linear, fixed, alone = rows(out, "appendix_e")
    assert (linear["accuracy_last"], linear["difference"]) == ("not run", "")
    assert (fixed["accuracy_last"], fixed["accuracy_best"]) == ("63.50", "not measured")
    assert (fixed["difference"], alone["difference"]) == ("-0.56", "-0.64")
    rates = {row["method"]: row for row in rows(out, "table2")}
    # The mean of made-up rates 0.11, 0.111, 0.112 and 0.112 is 11.125 %; the paper has 16.06 %.
    assert rates["OSR + OTS"]["gross_firing_rate"] == "11.12"
    assert rates["OSR + OTS"]["difference"] == "-4.93"
    assert rates["OTTT"]["source"] == "Xiao et al. 2022"
    steps = [row for row in rows(out, "figure2b") if row["method"] == "OSR + OTS"]
    assert [row["firing_rate"] for row in steps] == ["11.00", "11.10", "11.20", "11.20"]
    assert [row["paper"] for row in steps] == ["17", "16", "16", "16"]
    memory = rows(out, "figure2a")
    assert {row["megabytes"] for row in memory if row["method"] == "online"} == {"61.235"}
    bptt = [row["paper"] for row in memory if row["method"] == "bptt"]
    assert (bptt[0], bptt[-1]) == ("3500", "21000")


def test_what_was_not_run_is_never_filled_from_the_paper(some: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_paper_report(some, out)
    results = Results.of_all(some)
    done = {cell.run for cell in own_cells() if results.done(cell)}
    for table in ("table1", "table4", "appendix_e"):
        commands = json.loads((out / f"{table}.json").read_text())["commands"]
        for cells in rows(out, table):
            found = {cells["accuracy_last"], cells["accuracy_best"]}
            if cells.get("source"):
                assert found == {"quoted"}
            elif cells["experiment"] not in done:
                assert found == {"not run"}
                assert cells["difference"] == ""
                pipeline, experiment = cells["experiment"].split("/")
                assert f"dvc --cd pipelines repro report@{pipeline}-{experiment}" in commands
    nothing = samples.copy_pipelines(tmp_path / "nothing")
    write_paper_report(nothing, tmp_path / "none")
    assert {row["megabytes"] for row in rows(tmp_path / "none", "figure2a")} == {"not run"}
    for name in ("figure2a", "figure2b", "figure3"):
        svg = (tmp_path / "none" / f"{name}.svg").read_text()
        assert "dvc --cd pipelines repro report" in svg


@pytest.mark.parametrize("pipeline", ["cifar10", "imagenet", "cifar100"])
def test_a_pipelines_report_has_the_papers_rows(pipeline: str, some: Path, tmp_path: Path) -> None:
    """Filtered to what the pipeline has, and in Tables 2 and 4 its other experiments beside."""
    write_paper_report(some, tmp_path / "paper")
    write_report(some / pipeline, tmp_path / "own")
    compared = 0
    for path in sorted((tmp_path / "own").glob("*.csv")):
        if path.stem in ("training", "figure3", "figure3_moments"):
            continue
        own = {row.get("experiment", ""): row for row in rows(tmp_path / "own", path.stem)}
        for cells in rows(tmp_path / "paper", path.stem):
            name = cells.get("experiment", "").removeprefix(f"{pipeline}/")
            if cells.get("source") or "/" in name or path.stem.startswith("figure"):
                continue
            if path.stem == "appendix_e" and cells["accuracy_best"] == "not measured":
                continue  # two rows of one experiment
            for key in cells.keys() & own[name].keys() - {"experiment"}:
                assert own[name][key] == cells[key], (path.stem, name, key)
                compared += 1
    assert compared > 50


def test_a_run_with_other_settings_than_the_papers(some: Path, tmp_path: Path) -> None:
    path = some / "cifar10" / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 300", "epochs: 3"))
    for run in ("vggsnn-per_step", "vggsnn-osr_ots"):
        shutil.rmtree(some / "cifar10" / "runs" / run)
    samples.write_paper_run(some, "cifar10/vggsnn-osr_ots")
    out = tmp_path / "out"
    write_paper_report(some, out)
    notes = json.loads((out / "table1.json").read_text())["notes"]
    told = "cifar10/vggsnn-osr_ots differs from the paper: training.epochs 3 instead of 300."
    assert told in notes
    assert row(out, "table1", "cifar10/vggsnn-osr_ots")["epochs"] == "3"


def test_another_data_set_never_stands_beside_the_papers_number(some: Path, tmp_path: Path) -> None:
    path = some / "cifar10" / "params.yaml"
    path.write_text(path.read_text().replace("name: cifar10", "name: cifar100"))
    for run in ("vggsnn-per_step", "vggsnn-osr_ots"):
        shutil.rmtree(some / "cifar10" / "runs" / run)
    samples.write_paper_run(some, "cifar10/vggsnn-osr_ots")
    out = tmp_path / "out"
    write_paper_report(some, out)
    assert row(out, "table1", "cifar10/vggsnn-osr_ots")["accuracy_last"] == "not run"
    notes = json.loads((out / "table1.json").read_text())["notes"]
    assert any(note.startswith("cifar10/vggsnn-osr_ots: params.yaml has no") for note in notes)


@pytest.mark.parametrize("run", [True, False])
def test_the_page_is_well_formed_and_stands_alone(run: bool, some: Path, tmp_path: Path) -> None:
    pipelines = some if run else samples.copy_pipelines(tmp_path / "nothing")
    written = write_paper_report(pipelines, tmp_path / "out")
    page = read(tmp_path / "out" / "index.html")
    check_alone(page, written)
    assert page.tags.count("table") == page.tags.count("caption") == (6 if run else 4)
    assert page.tags.count("svg") == 3
    assert ("12 of 39" if run else "0 of 39") in page.text
    assert "Zheng et al. 2021" in page.text
    results = Results.of_all(pipelines)
    done = {cell.command for cell in own_cells() if results.done(cell)}
    for command in {cell.command for cell in own_cells()}:
        assert (command in page.text) == (command not in done)


def test_the_list_has_a_line_for_each_cell(some: Path) -> None:
    header, *lines = list_cells(some)
    assert header.split() == ["TABLE", "ROW", "COLUMN", "STATE", "COMMAND"]
    place = header.index("STATE")
    results = Results.of_all(some)
    for line, cell in zip(lines, own_cells(), strict=True):
        assert line[place:].startswith("run  " if results.done(cell) else "not run  ")
        assert line[header.index("COMMAND") :] == cell.command


def test_what_is_outdated_is_listed_and_refused(some: Path, tmp_path: Path) -> None:
    path = some / "imagenet" / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 100", "epochs: 3"))
    lines = [line for line in list_cells(some) if "ImageNet, SEW-ResNet-34, OSR + OTS" in line]
    assert lines
    assert all("  outdated  " in line for line in lines)
    with pytest.raises(UserError, match=r"imagenet/runs/sew_resnet34-osr_ots/digests\.json: fing"):
        write_paper_report(some, tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match=r"imagenet/params\.yaml: not found"):
        write_paper_report(some, tmp_path / "out")
    assert not (tmp_path / "out").exists()
