"""`steadyspike bench`: a whole run, pages without one, and what it refuses."""

import json
from pathlib import Path

import pytest

from bench.made_up import bench
from steadyspike.bench.records import save
from steadyspike.cli import parser
from steadyspike.errors import UserError


def run(*arguments: str) -> int:
    args = parser().parse_args(["bench", *arguments])
    status: int = args.run(args)
    return status


@pytest.mark.slow
def test_a_whole_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--device=cpu", "--precision=float32", "--chunk=2", "--steps=2", "--data=none")
    assert run("--quick", *options) == 0
    content = json.loads((tmp_path / "runs/bench/bench-cpu.json").read_text())
    ours = content["measurements"]
    assert [(m["framework"], m["setting"]["chunk"], len(m["seconds"])) for m in ours] == [
        ("steadyspike", 2, 2),
        ("steadyspike-plain", 2, 2),
    ]
    assert all(m["kept_bytes"] > 0 for m in ours)
    assert ours[1]["variant"] == "plain torch"
    assert len(ours[0]["convolution_seconds"]) == 2
    captured = capsys.readouterr()
    assert "| steadyspike (plain torch), K 2 |" in captured.out
    for line in captured.out.splitlines()[-3:]:
        assert (tmp_path / line).exists(), line
    assert "turn 2 of 2" in captured.err


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


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("--steps", "1,2", "expected a whole number above 0"),
        ("--chunk", "1,0", "expected a whole number above 0"),
        ("--chunk", "two", "expected a whole number above 0"),
        ("--batch", "1.5", "expected a whole number above 0"),
        ("--batch", "-1", "expected a whole number above 0"),
        ("--precision", "float16", "expected some of float32,tf32,bfloat16"),
        ("--train", "nan", "expected a number of minutes above 0"),
        ("--train", "long", "expected a number of minutes above 0"),
        ("--device", "tpu", "invalid choice"),
    ],
)
def test_a_mistake_names_option_value_and_expectation(
    option: str, value: str, expected: str
) -> None:
    with pytest.raises(UserError) as error:
        run(f"{option}={value}")
    message = str(error.value)
    assert f"argument {option}: {expected}" in message
    assert value.split(",")[-1] in message
