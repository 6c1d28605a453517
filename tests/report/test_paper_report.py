"""The report of all the paper's cells, from made-up runs of the real pipelines."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from report import samples
from report.page_reader import check_alone, read, tags, text_of
from steadyspike.errors import UserError
from steadyspike.report import list_cells, tables, write_paper_report
from steadyspike.report.paper import own_cells
from steadyspike.report.results import Results
from steadyspike.report.table import Table
from tiny import REPOSITORY

Rows = list[dict[str, str]]
SEEDS = [(94.0, 94.1), (94.2, 94.5), (94.4, 94.3)]


def copy_pipelines(folder: Path) -> Path:
    """The real params.yaml of each, with nothing run."""
    for path in sorted(REPOSITORY.glob("pipelines/*/params.yaml")):
        (folder / path.parent.name).mkdir(parents=True)
        shutil.copy(path, folder / path.parent.name)
    return folder


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of the experiments, and Figure 2a; not to change."""
    pipelines = copy_pipelines(tmp_path_factory.mktemp("some") / "pipelines")
    cifar10 = pipelines / "cifar10"
    samples.write_run(cifar10, "vggsnn-osr_ots", SEEDS)
    accuracy = {"last": 92.0, "best": 92.3, "best_epoch": 3}
    samples.write_run(cifar10, "vggsnn-per_step", accuracy=accuracy)
    samples.write_memory(cifar10)
    samples.write_run(
        pipelines / "imagenet",
        "sew_resnet34-osr_ots",
        accuracy={"last": 63.9, "best": 64.0, "best_epoch": 3},
        inference={"live": 63.9, "fixed": 63.5, "batch_1": 62.0},
    )
    return pipelines


@pytest.fixture(scope="module")
def nothing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_pipelines(tmp_path_factory.mktemp("nothing") / "pipelines")


@pytest.fixture(scope="module")
def out(some: Path) -> Path:
    write_paper_report(some, some.parent / "out")
    return some.parent / "out"


def rows(out: Path, table: str) -> Rows:
    with (out / f"{table}.csv").open() as file:
        return list(csv.DictReader(file))


def row(out: Path, table: str, run: str) -> dict[str, str]:
    return next(row for row in rows(out, table) if row["experiment"] == run)


def all_tables(results: Results) -> dict[str, Table]:
    makers = (
        *(tables.table1, tables.table2, tables.table4),
        *(tables.operations, tables.appendix_e, tables.experiments),
    )
    return {table.name: table for table in (make(results) for make in makers)}


def cells(table: Table) -> Rows:
    return list(csv.DictReader(table.to_csv().splitlines()))


def test_differences_seeds_and_epochs(out: Path) -> None:
    for table in ("table1", "table4"):
        cells = row(out, table, "cifar10/vggsnn-osr_ots")
        assert (cells["accuracy_last"], cells["accuracy_best"]) == ("94.20", "94.30")
        assert (cells["paper"], cells["difference"]) == ("94.35", "-0.05")
        assert (cells["seeds"], cells["epochs"]) == ("3", "300")
    assert row(out, "table4", "cifar10/vggsnn-per_step")["difference"] == "-0.30"
    assert "−0.05" in (out / "table4.md").read_text()


def test_appendix_and_rates(out: Path) -> None:
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
    flat = [row for row in memory if (row["method"], row["chunk"]) == ("online", "1")]
    assert {row["megabytes"] for row in flat} == {"61.235"}
    assert {row["paper"] for row in flat} == {"3000"}
    assert {row["paper"] for row in memory if row["chunk"] == "4"} == {""}
    bptt = [row["paper"] for row in memory if row["method"] == "bptt"]
    assert (bptt[0], bptt[-1]) == ("3500", "21000")


def test_what_was_not_run_is_never_filled_from_the_paper(some: Path, out: Path) -> None:
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
                command = cells["experiment"].replace("/", "-")
                assert f"dvc --cd pipelines repro report@{command}" in commands


@pytest.mark.parametrize("pipeline", ["cifar10", "imagenet", "cifar100"])
def test_a_pipelines_report_has_the_papers_rows(pipeline: str, some: Path) -> None:
    """Filtered to what the pipeline has, and in Tables 2 and 4 its other experiments beside."""
    paper = all_tables(Results.of_all(some))
    compared = 0
    for name, table in all_tables(Results.of_pipeline(some / pipeline)).items():
        own = {row.get("experiment", ""): row for row in cells(table)}
        for theirs in cells(paper[name]):
            run = theirs.get("experiment", "").removeprefix(f"{pipeline}/")
            if theirs.get("source") or "/" in run:
                continue
            if name == "appendix_e" and theirs["accuracy_best"] == "not measured":
                continue  # two rows of one experiment
            for key in theirs.keys() & own[run].keys() - {"experiment"}:
                assert own[run][key] == theirs[key], (name, run, key)
                compared += 1
    assert compared > 50


@pytest.mark.parametrize(
    ("old", "new", "accuracy", "note"),
    [
        (
            "epochs: 300",
            "epochs: 3",
            "50.00",
            "cifar10/vggsnn-osr_ots differs from the paper: training.epochs 3 instead of 300.",
        ),
        (
            "name: cifar10",
            "name: cifar100",
            "not run",  # never beside the paper's number
            "cifar10/vggsnn-osr_ots: params.yaml has no experiment of this name with the paper's "
            "data set, network and method.",
        ),
    ],
)
def test_a_run_with_other_settings_than_the_papers(
    old: str, new: str, accuracy: str, note: str, nothing: Path, tmp_path: Path
) -> None:
    pipelines = shutil.copytree(nothing, tmp_path / "pipelines")
    path = pipelines / "cifar10" / "params.yaml"
    path.write_text(path.read_text().replace(old, new))
    samples.write_run(pipelines / "cifar10", "vggsnn-osr_ots")
    table = tables.table1(Results.of_all(pipelines))
    assert note in table.notes
    (found,) = (row for row in cells(table) if row["experiment"] == "cifar10/vggsnn-osr_ots")
    assert found["accuracy_last"] == accuracy


def test_what_was_trained_for_fewer_epochs_is_marked(nothing: Path, tmp_path: Path) -> None:
    pipelines = shutil.copytree(nothing, tmp_path / "pipelines")
    cifar10 = pipelines / "cifar10"
    path = cifar10 / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 300", "epochs: 60"))
    samples.write_run(cifar10, "vggsnn-osr_ots")
    samples.write_memory(cifar10)
    samples.write_run(pipelines / "imagenet", "sew_resnet34-osr_ots")  # as long as the paper's
    footnote = "rained for fewer epochs than the paper: cifar10/vggsnn-osr_ots 60 of 300 epochs"
    for results in (Results.of_all(pipelines), Results.of_pipeline(cifar10)):
        text = tables.table4(results).to_markdown()
        name = "cifar10/vggsnn-osr_ots" if results.of_paper else "vggsnn-osr_ots"
        (line,) = (line for line in text.splitlines() if f"| `{name}`" in line)
        for shown in ("50.00†", "50.40†", "11.12†", "−43.95†"):
            assert shown in line
        assert text.count("†") == 5  # and the footnote
        assert "† Trained for fewer epochs than the paper: " in text
    (found,) = (
        row for row in cells(tables.table4(results)) if row["experiment"] == "vggsnn-osr_ots"
    )
    assert (found["accuracy_last"], found["difference"]) == ("50.00", "-43.95")
    *lines, last = list_cells(pipelines)
    assert last == f"† t{footnote}"
    ended = [line for line in lines if "  run" in line]
    marked = {line.split("  ")[0] for line in ended if "  run†  " in line}
    assert marked == {"Table 1", "Table 4", "Figure 3"}
    assert sum("  run  " in line for line in ended if "Figure 2a" in line) == 2
    assert any("  run  " in line for line in ended if "ImageNet" in line)


@pytest.mark.parametrize("run", [True, False])
def test_the_page_is_well_formed_and_stands_alone(
    run: bool, request: pytest.FixtureRequest, some: Path, nothing: Path, tmp_path: Path
) -> None:
    if run:
        pipelines, folder = some, request.getfixturevalue("out")
    else:
        pipelines, folder = nothing, tmp_path
        write_paper_report(pipelines, folder)
        assert {row["megabytes"] for row in rows(folder, "figure2a")} == {"not run"}
        for name in ("figure2a", "figure2b", "figure3"):
            assert "dvc --cd pipelines repro report" in (folder / f"{name}.svg").read_text()
    page = read(folder / "index.html")
    check_alone(page, folder.iterdir())
    found, text = tags(page), text_of(page)
    assert found.count("table") == found.count("caption") == (7 if run else 4)
    assert found.count("svg") == (4 if run else 3)
    assert ("12 of 39" if run else "0 of 39") in text
    assert "Zheng et al. 2021" in text
    results = Results.of_all(pipelines)
    done = {cell.command for cell in own_cells() if results.done(cell)}
    for command in {cell.command for cell in own_cells()}:
        assert (command in text) == (command not in done)


def test_the_list_has_a_line_for_each_cell(some: Path) -> None:
    header, *lines = list_cells(some)
    assert header.split() == ["TABLE", "ROW", "COLUMN", "STATE", "COMMAND"]
    place = header.index("STATE")
    results = Results.of_all(some)
    for line, cell in zip(lines, own_cells(), strict=True):
        assert line[place:].startswith("run  " if results.done(cell) else "not run  ")
        assert line[header.index("COMMAND") :] == cell.command


def test_what_is_outdated_is_listed_and_refused(some: Path, tmp_path: Path) -> None:
    changed = shutil.copytree(some, tmp_path / "pipelines")
    path = changed / "imagenet" / "params.yaml"
    path.write_text(path.read_text().replace("epochs: 100", "epochs: 3"))
    lines = [line for line in list_cells(changed) if "ImageNet, SEW-ResNet-34, OSR + OTS" in line]
    assert lines
    assert all("  outdated  " in line for line in lines)
    with pytest.raises(UserError, match=r"imagenet/runs/sew_resnet34-osr_ots/digests\.json: fing"):
        write_paper_report(changed, tmp_path / "out")
    path.unlink()
    with pytest.raises(UserError, match=r"imagenet/params\.yaml: not found"):
        write_paper_report(changed, tmp_path / "out")
    assert not (tmp_path / "out").exists()
