"""The parts of README.md and docs/methods.md that hold results."""

import csv
import json
import re
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bench.made_up import bench, measurement
from steadyspike.bench.records import save
from steadyspike.errors import UserError
from tiny import REPOSITORY, load_tool

EMPTY = (
    "# Mine\n\n<!-- results -->\nold\n<!-- /results -->\n\n<!-- speed -->\n<!-- /speed -->\nEnd.\n"
)
METHODS = (
    "<!-- methods -->\nold\n<!-- /methods -->\n<!-- weight decay -->\n<!-- /weight decay -->\n"
)


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("readme")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "README.md").write_text(EMPTY)
    return tmp_path


def lay_steps(folder: Path, accuracies: dict[str, list[tuple[float, float]]]) -> None:
    """A pipeline's params.yaml and the report of (first step, all steps) for each seed."""
    (folder / "reports").mkdir(parents=True)
    own = REPOSITORY / "pipelines" / folder.name
    shutil.copy((own if own.exists() else REPOSITORY) / "params.yaml", folder)
    with (folder / "reports/steps.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(
            ["experiment", "seed", "step", "statistics", "step_accuracy", "votes_accuracy"],
        )
        for name, seeds in accuracies.items():
            for seed, (first, every) in enumerate(seeds):
                write([name, seed, 1, "inference", first, first])
                write([name, seed, 2, "inference", every + 1, every])
                write([name, seed, 1, "batch", 99, 99])
                write([name, seed, 2, "batch", 99, 99])


def table(text: str) -> list[list[str]]:
    """The cells of the only table in a text."""
    rows = [
        [c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if "|" in line
    ]
    return [row for row in rows if not set("".join(row)) <= set(":-")]


def part(text: str, name: str) -> str:
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def test_pages_show_the_committed_results(tool: ModuleType) -> None:
    for page in tool.PARTS:
        assert tool.rendered(REPOSITORY, page) == (REPOSITORY / page).read_text()


def test_methods_are_ranked_by_accuracy(tool: ModuleType, folder: Path) -> None:
    reports = folder / "pipelines/methods/reports"
    (folder / "docs").mkdir()
    (folder / "docs/methods.md").write_text(METHODS)
    assert tool.rendered(folder, "docs/methods.md") == METHODS.replace("old\n", "")
    accuracies = {"ots-ottt": [(0, 84.0), (0, 85.0)], "osr_ots": [(0, 82.0), (0, 83.5)]}
    lay_steps(reports.parent, accuracies)
    columns = "quantity,method,experiment,mean,low,high,difference,difference_low,difference_high"
    quantities = "Accuracy after all steps", "Accuracy of the first step alone", "Gross firing rate"
    with (reports / "comparison.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write([*columns.split(","), "verdict"])
        for quantity in quantities:
            write([f"{quantity}, %", "vanilla BN", "sltt", 80.0, 79.0, 81.0, *[""] * 4])
            difference = [2.5, -1.0, 6.0] if "firing" in quantity else [2.5, 1.0, 4.0]
            verdict = "higher" if "firing" in quantity else "more accurate"
            write([f"{quantity}, %", "TAB", "tab", 82.5, 82.0, 83.0, *difference, verdict])
    (reports / "speed.csv").write_text("experiment,update,epoch,kept\ntab,each step,3.2,1.25\n")
    shown = part(tool.rendered(folder, "docs/methods.md"), "methods")
    less = "`ots-ottt`, ours, less `osr_ots`, the paper's method: +1.8 (−1.4 to 4.9) points, no"
    assert less in shown
    assert table(shown)[1:] == [
        [
            *("TAB, updated each step", "`tab`", "82.5 ± 0.5", "**+2.5 (1.0 to 4.0)**"),
            *("82.5 ± 0.5", "82.5 ± 0.5", "1.25", "3.2"),
        ],
        ["vanilla BN", "`sltt`", "80.0 ± 1.0", "", "80.0 ± 1.0", "80.0 ± 1.0", "", ""],
    ]


def test_each_weight_decay_is_a_column(tool: ModuleType, folder: Path) -> None:
    (folder / "docs").mkdir()
    (folder / "docs/methods.md").write_text(METHODS)
    pipeline = folder / "pipelines/weight_decay"
    accuracies = {
        "osr": [(70.0, 80.0), (71.0, 82.0)],
        "sltt": [(20.0, 80.0), (30.0, 82.0)],
        "sltt-wd0": [(40.0, 75.0), (40.0, 77.2)],
    }
    lay_steps(pipeline, accuracies)
    with (pipeline / "reports/comparison.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["quantity", "method", "experiment", "mean", "low", "high"])
        write(["Accuracy after all steps, %", "OSR", "osr", 81.0, 80.0, 82.0])
        write(["Accuracy after all steps, %", "vanilla BN", "sltt", 81.0, 79.0, 83.0])
        write(["Accuracy after all steps, %", "vanilla BN", "sltt-wd5e-5", 80.0, 79.5, 80.5])
        write(["Accuracy after all steps, %", "vanilla BN", "sltt-wd0", 76.1, 76.0, 76.2])
        write(["Gross firing rate, %", "vanilla BN", "sltt-wd0", 20.0, 19.0, 21.0])
    shown = part(tool.rendered(folder, "docs/methods.md"), "weight decay")
    assert table(shown) == [
        [
            *("Weight decay", "0", "5e-5", "5e-4"),
            *("0 less 5e-4", "First step alone, 0 less 5e-4"),
        ],
        ["OSR", "", "", "81.0 ± 1.0", "", ""],
        [
            *("vanilla BN", "76.1 ± 0.1", "80.0 ± 0.5", "81.0 ± 2.0"),
            *("**−4.9 (−6.2 to −3.6)**", "+15.0 (−48.5 to 78.5)"),
        ],
    ]


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text().split()) <= 1200


def test_what_was_not_measured_is_left_out(tool: ModuleType, folder: Path) -> None:
    text = tool.rendered(folder)
    assert text == EMPTY.replace("old\n", "")


def test_accuracies_are_those_of_the_reports(tool: ModuleType, folder: Path) -> None:
    lay_steps(folder, {"per_step": [(30.0, 80.0)], "osr_ots": [(83.0, 84.25)]})
    lay_steps(
        folder / "pipelines/cifar10_cpu",
        {"osr_ots": [(50.0, 60.0), (52.0, 64.0), (54.0, 62.0)], "bptt": [(20.0, 55.0)]},
    )
    text = tool.rendered(folder)
    shown = part(text, "results")
    assert re.findall('src="([^"]+)"', shown) == [
        "reports/steps.svg",
        "pipelines/cifar10_cpu/reports/steps.svg",
    ]
    header, *rows = table(shown)
    methods = ["vanilla BN", "OTS", "OSR", "OSR + OTS", "BPTT + BN"]
    assert header == ["Accuracy, %", *methods]
    small = rows[1].pop(0)
    assert small.startswith("Fashion-MNIST 6k, narrow VGGSNN, ")
    assert small.endswith(" epochs, 1 seed")
    assert rows == [
        [
            "CIFAR-10, narrow VGGSNN, 10 epochs, 1 to 3 seeds",
            *["", "", "", "62.0±2.0 (52.0±2.0)", "55.0 (20.0)"],
        ],
        ["80.0 (30.0)", "", "", "84.2 (83.0)", ""],
        ["Paper: CIFAR-10, VGGSNN, 300 epochs", "92.60", "", "94.05", "94.35", ""],
    ]
    assert text.endswith("End.\n")
    (folder / "README.md").write_text(text)
    assert tool.rendered(folder) == text


def test_what_is_more_than_chance_is_marked(tool: ModuleType, folder: Path) -> None:
    lay_steps(folder, {name: [(30.0, 80.0), (32.0, 82.0)] for name in ("per_step", "osr", "bptt")})
    with (folder / "reports/comparison.csv").open("w", newline="") as file:
        write = csv.writer(file).writerow
        write(["quantity", "experiment", "verdict"])
        write(["Accuracy after all steps, %", "osr", "more accurate"])
        write(["Accuracy of the first step alone, %", "osr", "no difference shown"])
        write(["Accuracy of the first step alone, %", "bptt", "less accurate"])
        write(["Gross firing rate, %", "bptt", "lower"])
    header, row, _ = table(part(tool.rendered(folder), "results"))
    shown = dict(zip(header, row, strict=True))
    assert shown["vanilla BN"] == "81.0±1.4 (31.0±1.4)"
    assert shown["OSR"] == "**81.0±1.4** (31.0±1.4)"
    assert shown["BPTT + BN"] == "81.0±1.4 (*31.0±1.4*)"


def test_more_seeds_of_the_same_images_replace_the_roots(tool: ModuleType, folder: Path) -> None:
    lay_steps(folder, {"osr": [(30.0, 80.0)]})
    accuracies = [(31.0, 81.0), (31.0, 81.0)]
    lay_steps(folder / "pipelines/seeds", {"osr": accuracies, "osr_warm": accuracies})
    shown = part(tool.rendered(folder), "results")
    assert "80.0" not in shown
    assert "(ours)" not in shown
    assert re.findall('src="([^"]+)"', shown) == ["pipelines/seeds/reports/steps.svg"]


def gpu_check(folder: Path, date: str, parts: dict[str, list[dict[str, Any]]]) -> None:
    record = {
        "date": f"{date}T01:02:03+00:00",
        "device": "NVIDIA H100",
        "commit": "0123456",
        "parts": {name: {"state": "done", "rows": rows} for name, rows in parts.items()},
    }
    runs = folder / "docs/runs"
    runs.mkdir(parents=True, exist_ok=True)
    (runs / f"{date}-h100-0123456.json").write_text(json.dumps(record))


def trained(name: str, epochs: int, first: float, every: float) -> list[dict[str, Any]]:
    configuration = {"training": {"epochs": epochs}, "model": {"name": "vggsnn"}}
    steps = {"Alone, as used": [first, 1.0], "Votes, as used": [1.0, every]}
    return [
        {"name": name, "result": "", "data": {}, "configuration": configuration},
        {"name": f"{name}, each step alone, %", "result": "", "data": steps},
    ]


def test_cifar10_on_a_gpu_is_of_the_newest_run_that_ended(tool: ModuleType, folder: Path) -> None:
    old = trained("vggsnn-osr_ots", 60, 91.0, 92.0) + trained("vggsnn-bptt", 60, 50.0, 90.0)
    unfinished = trained("vggsnn-bptt", 60, 0.0, 0.0)[:1]
    gpu_check(folder, "2026-01-01", {"cifar10": old})
    new = trained("vggsnn-osr_ots", 60, 92.0, 93.0) + trained("vggsnn-osr", 40, 80.0, 91.0)
    gpu_check(folder, "2026-01-02", {"cifar10": [*new, *unfinished]})
    header, row, _ = table(part(tool.rendered(folder), "results"))
    assert dict(zip(header, row, strict=True)) == {
        "Accuracy, %": "CIFAR-10, VGGSNN, 60 epochs (OSR 40), 1 seed, GPU",
        "OSR": "91.0 (80.0)",
        "OSR + OTS": "93.0 (92.0)",
        "BPTT + BN": "90.0 (50.0)",
    }


def test_speed_is_that_of_the_bench(tool: ModuleType, folder: Path) -> None:
    (folder / "docs").mkdir()
    save(bench(), folder / "docs")
    shown = part(tool.rendered(folder), "speed")
    assert "batch 8, float32; A processor, 2026-01-02, commit 0123456 ([" in shown
    assert "[all tables](docs/bench-cpu.md)" in shown
    assert table(shown) == [
        ["", "Images/s", "× SpikingJelly (BPTT)", "Peak memory, MB"],
        ["**steadyspike (fused), K 1**", "4.0", "1.50 (1.00 to 2.00)", "100"],
        ["**steadyspike (fused), K 4**", "8.0", "3.00 (2.00 to 4.00)", "300"],
        ["SpikingJelly (BPTT)", "2.7", "1.00", "400"],
    ]


def test_a_gpus_speed_comes_first(tool: ModuleType, folder: Path) -> None:
    (folder / "docs").mkdir()
    save(bench(), folder / "docs")
    found = [
        measurement("steadyspike", [0.5], chunk=4),
        measurement("steadyspike", [1.0]),
        measurement("spikingjelly-bptt", [2.0], chunk=4),
        measurement("spikingjelly-bptt-compiled", [1.5], chunk=4),
        measurement("spikingjelly-sltt", [], failed="out of memory"),
    ]
    peers = [{"name": m.framework, "result": "", "data": m.model_dump(mode="json")} for m in found]
    loop = [{"name": "training loop, bfloat16 K 4", "result": "14,000 images/s", "data": {}}]
    ratio = [{"name": "ratio", "result": "", "data": {"ratio": 2.0}}]
    gpu_check(folder, "2026-01-01", {"peers": peers + ratio, "loop": loop})
    gpu_check(folder, "2026-01-02", {"peers": peers[:2]})  # cut off before another library
    shown = part(tool.rendered(folder), "speed")
    assert (
        "NVIDIA H100, 2026-01-01, commit 0123456 ([all tables](docs/runs/2026-01-01-h100" in shown
    )
    loop_line = "Training loop, bfloat16 K 4 (commit 0123456): 14,000 images/s ([all tables](docs/"
    assert loop_line in shown
    assert [row[:3] for row in table(shown)[1:]] == [
        ["**steadyspike (fused), K 1**", "8.0", "1.50"],
        ["**steadyspike (fused), K 4**", "16.0", "3.00"],
        ["SpikingJelly (BPTT, compiled)", "5.3", "1.00"],
    ]


@pytest.mark.parametrize("text", ["no marks\n", "<!-- results -->\n", "<!-- /results -->\n"])
def test_a_readme_without_marks_is_refused(tool: ModuleType, folder: Path, text: str) -> None:
    (folder / "README.md").write_text(text)
    with pytest.raises(UserError, match=r"README\.md: expected a line <!-- results --> and below"):
        tool.rendered(folder)
