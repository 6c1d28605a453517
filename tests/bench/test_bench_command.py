"""The command itself, on networks that take no time."""

import json
from pathlib import Path

from bench_samples import bench

from steadyspike.bench.write import save
from tiny import command, refused

SMALL = (
    *("--device", "cpu", "--widths", "2,P,2", "--image", "1x8x8", "--batch", "4", "--threads", "1"),
    *("--repeats", "2", "--turn-seconds", "0.01", "--memory-steps", "none", "--data", "none"),
)


def test_a_whole_run_leaves_its_files_and_prints_its_tables(tmp_path: Path) -> None:
    result = command(tmp_path, "bench", *SMALL, "--precision", "float32", "--chunk", "1,4")
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "runs/bench"
    content = json.loads((folder / "bench-cpu.json").read_text())
    timed = [m for m in content["measurements"] if m["seconds"]]
    assert [(m["contender"], m["setting"]["chunk"]) for m in timed] == [
        ("steadyspike", 1),
        ("steadyspike", 4),
        ("steadyspike-plain", 1),
        ("steadyspike-bptt", 4),
    ]
    assert all(len(m["seconds"]) == 2 for m in timed)
    assert all(m["kept_bytes"] > 0 for m in content["measurements"])
    assert timed[2]["variant"] == "plain torch"
    kept = {
        m["setting"]["steps"]: m["kept_bytes"]
        for m in content["measurements"]
        if m["contender"] == "steadyspike" and m["setting"]["batch"] == 2
    }
    assert kept[2] == kept[30]
    assert "| steadyspike (plain torch), K 1 |" in result.stdout
    assert "## Ratios of one run" in result.stdout
    for line in result.stdout.splitlines()[-4:]:
        assert (tmp_path / line).exists(), line
    assert "round 2 of 2" in result.stderr


def test_tables_are_made_again_without_measuring(tmp_path: Path) -> None:
    save(bench(), tmp_path / "docs")
    result = command(tmp_path, "bench", "--render", "--out", "docs")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "docs/bench-cpu.md"
    refused(command(tmp_path, "bench", "--render", "--out", "none"), r"none: no bench-\*\.json")


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    refused(command(tmp_path, "bench", "--steps", "four"), "--steps: expected whole numbers")
    refused(command(tmp_path, "bench", "--train", "long"), "--train: expected a number above 0")
    assert not list(tmp_path.iterdir())
