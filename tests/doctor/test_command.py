"""`steadyspike doctor`, the command: its answer as JSON, in brief and as a table."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from doctor.findings import told
from steadyspike.doctor import gpu, machine, project, table
from steadyspike.doctor.brief import brief
from steadyspike.doctor.finding import Finding, looked_at, size
from tiny import command, environment, refused, write_data, write_params

TOPICS = [
    "steadyspike",
    "driver",
    "torch",
    "CPU",
    "C compiler",
    "CPU kernels",
    "memory",
    "shared memory",
    "checkout",
    "experiments",
    "data embedded",
    "other data",
    "DVC",
    "determinism",
]


def test_a_question_that_fails_is_a_note() -> None:
    def fails() -> list[Finding]:
        raise KeyError("MemAvailable")

    assert told(looked_at("memory", fails)) == [
        ("memory", "note", "could not be found out: 'MemAvailable'")
    ]


def diagnosis(root: Path, *arguments: str, **more: str) -> dict[str, dict[str, Any]]:
    result = command(root, "doctor", "--json", *arguments, **more)
    assert (result.returncode, result.stderr) == (0, "")
    findings = json.loads(result.stdout)["findings"]
    assert all(set(one) == {"advice", "facts", "found", "state", "topic"} for one in findings)
    assert {one["state"] for one in findings} <= {"ok", "note", "problem"}
    return {one["topic"]: one for one in findings}


def test_a_project_that_can_be_trained(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_params(tmp_path, {"a": {}})
    found = diagnosis(tmp_path, "--strict", OMP_NUM_THREADS="7", CUDA_VISIBLE_DEVICES="")
    assert list(found) == TOPICS
    settings = found["determinism"]
    assert settings["facts"]["algorithms"] is True
    assert settings["facts"]["threads"] == 2
    assert settings["facts"]["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS=7" in settings["advice"]


def test_a_project_that_cannot_be_trained(tmp_path: Path) -> None:
    """Only --strict makes a failure of it."""
    write_data(tmp_path)
    write_params(tmp_path, {"a": {"device": "cuda"}})
    for arguments, status in (((), 0), (("--strict",), 1)):
        result = command(tmp_path, "doctor", *arguments, CUDA_VISIBLE_DEVICES="")
        assert (result.returncode, result.stderr) == (status, "")
        assert "problem  experiments" in result.stdout
        assert "-> device: cpu trains the same" in result.stdout


def test_a_strange_machine(tmp_path: Path) -> None:
    """torch that does not load, NVML that is no NVML, no params.yaml: an answer all the same."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (tmp_path / "pynvml.py").write_text("")
    found = diagnosis(tmp_path)
    assert found["torch"]["state"] == "problem"
    assert "libcudart.so.13" in found["torch"]["found"]
    assert "libcudart.so.13" in found["data sets"]["found"]
    assert found["driver"]["found"].startswith("no GPU found")
    assert found["experiments"]["found"] == "params.yaml: not found"
    assert found["CPU"]["facts"]["cores"] >= 1
    assert command(tmp_path, "doctor", "--brief").returncode == 0


def test_brief_is_three_lines_without_torch(tmp_path: Path) -> None:
    write_data(tmp_path)
    program = (
        "import sys\nfrom steadyspike.cli import main\n"
        "try:\n    main(['doctor', '--brief'])\n"
        "except SystemExit as end:\n    print(end.code, file=sys.stderr)\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'dvc', 'rich', 'matplotlib'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.stderr == "0\nset()\n"
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("CPU: ")
    assert "shared memory" in lines[1]
    assert lines[2].startswith("data: ")


def test_brief_answers_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(gpu, "ask_driver", broken)
    monkeypatch.setattr(machine, "cores_told", broken)
    monkeypatch.setattr(project, "pulled", broken)
    assert brief() == [
        "gpu: could not be found out: odd",
        "processor: could not be found out: odd",
        "data: could not be found out: odd",
    ]


def test_brief_is_not_strict(tmp_path: Path) -> None:
    refused(command(tmp_path, "doctor", "--brief", "--strict"), "--strict: expected without")


def test_the_table_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    findings = [Finding("CPU", "ok", "A CPU"), Finding("data", "problem", "none", "fetch [it]")]
    table.show(findings)
    out = capsys.readouterr().out
    assert "\x1b[32mok" in out  # green
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).split() for line in out.splitlines()]
    assert lines == [["ok", "CPU", "A", "CPU"], ["problem", "data", "none"], ["→", "fetch", "[it]"]]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (64 << 20, "64 MiB"), (3 << 39, "1536.0 GiB")],
)
def test_sizes(count: int, expected: str) -> None:
    assert size(count) == expected
