"""The command itself."""

import json
from pathlib import Path

import pytest
from made_up import bench

from steadyspike.bench.records import save
from steadyspike.cli import parser
from steadyspike.errors import UserError
from tiny import command, refused


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    options = ("--device=cpu", "--precision=float32", "--chunk=4", "--data=none")
    result = command(tmp_path, "bench", "--quick", "--peers", *options)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "runs/bench/bench-cpu.json").read_text())
    ours = [m for m in content["measurements"] if m["framework"].startswith("steadyspike")]
    rows = [(m["framework"], m["setting"]["steps"], len(m["seconds"])) for m in ours]
    assert rows == [
        ("steadyspike", 4, 2),
        ("steadyspike-plain", 4, 2),
        ("steadyspike", 2, 0),
        ("steadyspike-plain", 2, 0),
    ]
    assert all(m["kept_bytes"] > 0 for m in ours)
    assert ours[1]["variant"] == "plain torch"
    assert len(ours[0]["convolution_seconds"]) == 2
    assert "| steadyspike (plain torch), K 4 |" in result.stdout
    for line in result.stdout.splitlines()[-4:]:
        assert (tmp_path / line).exists(), line
    assert "turn 2 of 2" in result.stderr


def test_tables_are_written_without_measuring(tmp_path: Path) -> None:
    save(bench(), tmp_path / "docs")
    result = command(tmp_path, "bench", "--render", "--out", "docs")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0] == "docs/bench-cpu.md"
    refused(command(tmp_path, "bench", "--render", "--out", "none"), r"none: no bench-\*\.json")


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--device=cuda", "--device: torch finds no GPU here, expected cpu"),
        ("--precision=tf32", "--precision: tf32 needs --device cuda"),
        ("--data=mnist", "--data: expected one of .*fashion_mnist.*, got 'mnist'"),
    ],
)
def test_what_this_machine_cannot_measure_is_refused(
    option: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    args = parser().parse_args(["bench", option])
    with pytest.raises(UserError, match=f"^{expected}"):
        args.run(args)
