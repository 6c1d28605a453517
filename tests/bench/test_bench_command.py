"""The command itself."""

import json
from pathlib import Path

import pytest
from made_up import bench

from steadyspike.bench.records import save
from steadyspike.cli import parser
from steadyspike.errors import UserError
from tiny import command


@pytest.mark.slow
def test_a_whole_run(tmp_path: Path) -> None:
    options = ("--device=cpu", "--precision=float32", "--chunk=2", "--steps=2", "--data=none")
    result = command(tmp_path, "bench", "--quick", "--peers", *options)
    assert result.returncode == 0, result.stderr
    content = json.loads((tmp_path / "runs/bench/bench-cpu.json").read_text())
    ours = [m for m in content["measurements"] if m["framework"].startswith("steadyspike")]
    rows = [(m["framework"], m["setting"]["chunk"], len(m["seconds"])) for m in ours]
    assert rows == [
        ("steadyspike", 2, 2),
        ("steadyspike-plain", 2, 2),
    ]
    assert all(m["kept_bytes"] > 0 for m in ours)
    assert ours[1]["variant"] == "plain torch"
    assert len(ours[0]["convolution_seconds"]) == 2
    assert "| steadyspike (plain torch), K 2 |" in result.stdout
    for line in result.stdout.splitlines()[-3:]:
        assert (tmp_path / line).exists(), line
    assert "turn 2 of 2" in result.stderr


def run(*arguments: str) -> int:
    args = parser().parse_args(["bench", *arguments])
    status: int = args.run(args)
    return status


def test_tables_are_written_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(bench(), tmp_path)
    assert run("--render", "--out", str(tmp_path)) == 0
    names = ["bench-cpu.md", "bench-cpu-speed.svg", "bench-cpu-memory.svg"]
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / name) for name in names]
    with pytest.raises(UserError, match=r"none: no bench-\*\.json: run `steadyspike bench --out"):
        run("--render", "--out", str(tmp_path / "none"))


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
    with pytest.raises(UserError, match=f"^{expected}"):
        run(option)
