"""`make gpu-check`, rehearsed on a CPU, and its records."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from steadyspike.errors import UserError
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
    """Exit status, standard output and the record, which lies beside the logs."""
    done = gpu_check("--rehearse", "--logs", folder, *arguments)
    (path,) = folder.glob("*.json")
    assert f"{path}\n{path.with_suffix('.md')}\n" in done.stdout
    return done.returncode, done.stdout, json.loads(path.read_text())


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(tmp_path: Path) -> None:
    status, out, record = rehearse(tmp_path, "--epochs", 2)
    states = {name: part["state"] for name, part in record["parts"].items()}
    assert states == dict.fromkeys(states, "done"), out
    assert status == 0, out
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
        (["steps", "nothing"], "expected one of environment, tests, bits"),
        (["--limit", "steps"], "expected PART=SECONDS or SECONDS, got 'steps'"),
        (["--limit", "all=3"], "expected PART=SECONDS or SECONDS, got 'all=3'"),
        (["--epochs", "0"], "argument --epochs: expected a whole number from 1, got '0'"),
        (["--experiments", "vggsnn-osr,vgg"], "expected some of vggsnn-per_step,vggsnn-osr,"),
        (["--images", "gone"], "argument --images: expected a folder, got 'gone'"),
        (["--rehearse", "--logs", "/proc/none"], "/proc/none: No such file or directory"),
        (["--rehearse", "--out", "/proc/none"], ".json: cannot be written"),
        (["--rehearse", "--merge", "gone.json"], "gone.json: cannot be read"),
        (["--rehearse", "--merge", str(TOOL / "record.py")], "expected a file of `make gpu-check`"),
        (["environment"], "nvidia-smi finds no GPU here"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, tmp_path: Path) -> None:
    places = ("--out", tmp_path / "out", "--logs", tmp_path / "logs")
    done = gpu_check(*places, *arguments, PATH=str(tmp_path))
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpu_check: ")
    assert message in line
    assert not (tmp_path / "out").exists()


def test_another_machines_record_is_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps({"date": "2026", "device": "A GPU", "commit": "1", "parts": {}}))
    done = gpu_check("environment", "--rehearse", "--merge", path)
    assert done.returncode == 2
    assert "device: expected 'CPU, a rehearsal', found 'A GPU'" in done.stderr


def test_the_card_is_the_one_that_torch_uses(
    modules: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\n[ \"$3\" = --id=1 ] && echo 'NVIDIA H100, 595.71'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    found = modules.record.query_gpu("name", "driver_version")
    assert found == {"name": "NVIDIA H100", "driver_version": "595.71"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="nvidia-smi finds no GPU here"):
        modules.record.query_gpu("name")


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The tool's own modules."""
    monkeypatch.syspath_prepend(str(TOOL))
    before = set(sys.modules)
    names = ("record", "common", "cifar10", "process")
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in set(sys.modules) - before:
        if str(TOOL) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_epochs_are_as_many_as_there_is_time_for(
    modules: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = modules.cifar10
    monkeypatch.setattr(tool, "_epoch_seconds", lambda *_: 1.0)
    options = modules.common.Options(
        rehearse=True,
        seconds=0,
        work="",
        epochs=1000,
        images=None,
        experiments=(),
        precision="bfloat16",
    )
    dataset = modules.common.noise(16, 8, 12)
    (row,) = tool._trained(options, dataset, "vggsnn-osr", tool.ENDING + 4.0)
    assert row.result == "not run: 4 s left, an epoch takes 1.0 s"
    *unfinished, row, steps = tool._trained(options, dataset, "vggsnn-osr", tool.ENDING + 6.5)
    assert [each.ended for each in unfinished] == [False] * 5
    assert unfinished[1].result.startswith("unfinished: epoch 2 of 6, ")
    assert "after 6 epochs (of 1000: no more time)" in row.result
    assert [epoch["epoch"] for epoch in row.data["epochs"]] == [1, 2, 3, 4, 5, 6]
    assert row.data["epochs"][3]["learning_rate"] == pytest.approx(0.05)  # half of six epochs
    assert row.configuration["training"]["epochs"] == 6
    assert (row.target, steps.target) == ("", "")  # those are of 60 epochs


def test_a_record_is_read_as_it_was_written(modules: SimpleNamespace, tmp_path: Path) -> None:
    record = modules.record
    part = record.Part("2026-11-27T00:00:00+00:00", "done", 3.0)
    part.add(record.Row("speed", "unfinished", ended=False))
    part.add(record.Row("bits", "other bits | again", holds=False))
    target = modules.common.compared(1.52, "at most", 1.6)
    part.add(record.Row("speed", "fast", target=target, table=[["T", "s"], ["4", "0.5"]]))
    assert [row.name for row in part.rows] == ["speed", "bits"]
    assert not part.sound
    whole = record.Record("2026-11-27", "A GPU", "abc1234", {"steps": part})
    path = tmp_path / "record.json"
    whole.save(path, {"steps": "Steps"})
    assert record.read_record(path) == whole
    page = path.with_suffix(".md").read_text()
    assert "| speed | fast                | (at most 1.6: reached) |" in page
    assert r"| bits  | other bits \| again | fails" in page
    assert "|   4 |" in page or "| 4   |" in page
    line = record.text_line("steps", part.rows[1])
    assert line == "steps       FAIL bits: other bits | again"


def test_a_part_that_dies_keeps_its_rows(modules: SimpleNamespace, tmp_path: Path) -> None:
    """Of a part that runs over its limit, all that it has started dies too."""
    script = tmp_path / "part.py"
    script.write_text(
        "import json, subprocess, sys, time\n"
        "row = dict(name=sys.argv[1], result='here')\n"
        "print(json.dumps(row), flush=True)\n"
        "if sys.argv[1] == 'fails': sys.exit('no such card')\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(1000)\n"
    )
    process = modules.process
    process.__file__ = str(tmp_path / "process.py")
    shown = []
    parts = {}
    for name, limit in (("fails", 60.0), ("hangs", 4.0)):  # a busy machine starts Python slowly
        parts[name] = part = modules.record.Part("now")
        options = {"seconds": limit, "rehearse": True}
        process.run_part(name, options, part, tmp_path / f"{name}.log", shown.append)
        assert [row.name for row in part.rows] == [name]
    assert [row.name for row in shown] == ["fails", "hangs"]
    assert parts["fails"].state == "failed, status 1: no such card"
    assert parts["hangs"].state == "over its limit of 4 s"
    child = Path("/proc") / (tmp_path / "child").read_text() / "stat"
    until = time.monotonic() + 20
    while is_running(child) and time.monotonic() < until:
        time.sleep(0.01)
    assert not is_running(child)


def is_running(stat: Path) -> bool:
    try:
        return " Z " not in stat.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
