"""`make gpu-check`, rehearsed on a CPU, and its records."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiny import REPOSITORY, environment

TOOL = REPOSITORY / "tools" / "gpu_check"


def gpu_check(*arguments: object, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, arguments)],
        env=environment(**variables),
        capture_output=True,
        text=True,
    )


def rehearse(folder: Path, *arguments: object) -> tuple[int, str, dict[str, Any]]:
    """Exit status, standard output and the record."""
    done = gpu_check("--rehearse", "--out", folder, "--logs", folder / "logs", *arguments)
    (path,) = folder.glob("*.json")
    assert f"{path}\n{path.with_suffix('.md')}\n" in done.stdout
    return done.returncode, done.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    status, out, record = rehearse(tmp_path, "--epochs", 2)
    states = {name: part["state"] for name, part in record["parts"].items()}
    assert states == dict.fromkeys(states, "done"), out
    assert status == 0
    assert len(states) == 7
    rows = {row["name"]: row for part in record["parts"].values() for row in part["rows"]}
    assert rows["float32 K 4"]["holds"]
    assert rows["tests"]["data"]["passed"] == 0  # all need a GPU
    assert rows["tests"]["data"]["skipped"] > 0
    assert rows["bfloat16 K 4"]["data"]["ratio"] > 0
    method = rows["vggsnn-osr_ots"]
    assert method["configuration"]["training"]["epochs"] == len(method["data"]["epochs"]) == 2
    assert "learning_rate" in method["data"]["epochs"][0]
    assert len(rows["vggsnn-osr_ots, each step alone, %"]["data"]["Alone, as used"]) == 4
    assert len(out) < 9000
    (page,) = tmp_path.glob("*.md")
    text = page.read_text()
    assert "| Kernel" in text
    assert '"weight_decay": 0.0005' in text  # the whole experiment


@pytest.mark.slow
def test_a_part_over_its_limit_is_a_row_and_the_others_go_on(tmp_path: Path) -> None:
    limits = ("--limit", "steps=1", "--limit", "environment=200")
    status, out, record = rehearse(tmp_path, "steps", "environment", *limits)
    assert status == 1
    assert record["parts"]["steps"]["state"].startswith("over its limit of 1 s")
    assert record["parts"]["environment"]["state"] == "done"
    assert "over its limit of 1 s" in out
    again = rehearse(tmp_path, "steps", "--limit", "0.5", "--merge", next(tmp_path.glob("*.json")))
    assert again[2]["parts"]["steps"]["state"] == "not run: no time was left"
    assert again[2]["parts"]["environment"] == record["parts"]["environment"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps", "nothing"], "expected one of environment, bits"),
        (["--limit", "steps"], "expected PART=SECONDS or SECONDS, got 'steps'"),
        (["--limit", "all=3"], "expected PART=SECONDS or SECONDS, got 'all=3'"),
        (["--rehearse", "--merge", "gone.json"], "gone.json: cannot be read"),
        (["--rehearse", "--merge", str(TOOL / "record.py")], "expected a file of `make gpu-check`"),
        (["environment"], "nvidia-smi finds no GPU here"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    done = gpu_check(*arguments, "--out", tmp_path / "out", PATH=str(tmp_path))
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_another_machines_record_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"date": "2026", "device": "A GPU", "commit": "1", "parts": {}}))
    done = gpu_check("environment", "--rehearse", "--merge", path)
    assert done.returncode == 2
    assert "device: expected 'CPU, a rehearsal', found 'A GPU'" in done.stderr
