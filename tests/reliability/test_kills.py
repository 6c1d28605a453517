"""A sample of what `python tools/reliability kills` tries, and that it would notice a failure."""

import random
import signal
import subprocess
import time
from pathlib import Path

import damage
import pytest
import stops
from damage import DAMAGES
from kills import (
    EVERY_BATCH,
    Kills,
    Whole,
    aimed,
    checkpoints,
    draw,
    kill,
    survive,
    undisturbed,
)
from moments import OTHER, After, InPhase, InWrite, Within, phase_of
from project import NAME, Project, differences, is_whole

from steadyspike.train.checkpoint import both, save_checkpoint
from tiny import tiny_experiment

IN_A_WRITE = InWrite([f"runs/{NAME}/.checkpoint.pt.tmp"], passed=2, seconds=0)
IN_EVALUATION = InPhase(("evaluation within training",), 0)


def test_killed_terminated_damaged_and_finished(
    project: Project, whole: Project, tmp_path: Path
) -> None:
    project = project.fresh(tmp_path / "project")
    killed, stopped = Kills(), stops.Stops()
    assert kill(project, EVERY_BATCH, IN_A_WRITE, killed) is None
    assert killed.phases.total() == 1
    assert checkpoints(project) > 0
    assert stops.stop(project, signal.SIGTERM, IN_EVALUATION, stopped)
    assert stopped.tried == 1
    assert stopped.slowest < stops.MOST_SECONDS
    assert checkpoints(project) == 2
    damage.damage(project.checkpoint, damage.one_bit, random.Random(0))
    assert checkpoints(project) == 1
    assert damage.goes_on(project, whole.outcome("runs"), "one_bit")


# Programs that the harness is tried on: each waits to be killed when it is started first.
BEGIN = """
import pathlib, sys, time
first = not pathlib.Path("there").exists()
def wait():
    pathlib.Path("there").touch()
    if first: time.sleep(60)
folder = pathlib.Path("runs/small"); folder.mkdir(parents=True, exist_ok=True)
"""
END = """
(folder / "model").write_text("weights")
"""
LEFT = """
temporary = folder / ".model.tmp"
if first: temporary.touch()
"""
PROGRAMS = {
    "is as it should be": BEGIN + "wait()" + END,
    "counts its starts": BEGIN + '(folder / "starts").open("a").write("1"); wait()' + END,
    "leaves a temporary file": BEGIN + LEFT + "wait()" + END,
    "does not start again": BEGIN + "wait(); sys.exit('no')",
    "writes other weights": BEGIN + 'wait(); (folder / "model").write_text("others")',
    "writes nothing": BEGIN + "wait()",
}
EXPECTED = {f"runs/{NAME}/model": b"weights"}


class WhenThere(InWrite):
    """When the program waits to be killed; what it does then is not asked."""

    def reached(self, process: "subprocess.Popen[str]", project: Project, dump: Path) -> bool:
        while not (project.root / "there").exists():
            if process.poll() is not None:
                return False
            time.sleep(0.01)
        return True


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_kill_has_changed_is_noticed(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    project, made = Project(tmp_path, tmp_path, ("-c", PROGRAMS[name])), Kills()
    survive(project, [("train",)], [[WhenThere([], 0, 0)]], EXPECTED, made)
    good = name == "is as it should be"
    assert (made.tried, made.held) == (1, int(good))
    assert bool(capfd.readouterr().err) == (not good)


def test_a_moment_after_the_end_is_no_kill(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    project = Project(tmp_path, tmp_path, ("-c", PROGRAMS["is as it should be"]))
    made, late = Kills(), After(60.0)
    assert survive(project, [("train",)], [[late]], EXPECTED, made) == [(0, late)]
    assert (made.tried, made.held, made.runs) == (0, 0, 1)


def test_an_undisturbed_run_that_fails_is_no_measure(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "params.yaml").write_text("")
    project = Project(tmp_path, tmp_path, ("-c", "import sys; sys.exit('train' in sys.argv)"))
    with pytest.raises(RuntimeError, match=r"the undisturbed train small .* ended with 1"):
        undisturbed(project, tmp_path / "whole")


def test_moments_are_uniform_over_the_chain() -> None:
    numbers = random.Random(0)
    whole = Whole({}, [6.0, 3.0, 1.0], [3.0, 1.0, 1.0])
    for started, kind, seconds in ((False, After, whole.seconds), (True, Within, whole.work)):
        drawn = [draw(whole, started, numbers) for _ in range(10_000)]
        for place, length in enumerate(seconds):
            within = [moment.seconds for command, moment in drawn if command == place]
            assert len(within) == pytest.approx(10_000 * length / sum(seconds), rel=0.1)
            assert 0 <= min(within) < 0.05 * length
            assert 0.95 * length < max(within) < length
        assert all(isinstance(moment, kind) for _, moment in drawn)


def test_kills_in_writes_are_of_every_kind_of_file() -> None:
    writes = aimed(random.Random(0), 10)
    assert [len(moments) for moments in writes] == [8, 1, 1]
    assert sum(map(len, aimed(random.Random(0), 6))) == 6


@pytest.mark.parametrize(
    ("calls", "phase"),
    [
        ("", OTHER),
        ("files.py:write checkpoint.py:save_checkpoint loop.py:train", "writing a checkpoint"),
        ("conv.py:forward trainer.py:_train_batch loop.py:train", "in a batch"),
        (
            "accuracy.py:evaluate trainer.py:finish_epoch loop.py:train",
            "evaluation within training",
        ),
        ("trainer.py:run_epoch loop.py:train", "between batches"),
        ("network.py:build_model trainer.py:__init__ loop.py:train", OTHER),
        ("checkpoint.py:newest_checkpoint loop.py:_resume loop.py:train", OTHER),
        ("files.py:write_atomically run.py:train_run", "writing a run's results"),
    ],
)
def test_a_stack_tells_the_phase(calls: str, phase: str) -> None:
    lines = ["Current thread 0x1 (most recent call first):"]
    for call in calls.split():
        file, name = call.split(":")
        folder = {"files.py": "", "accuracy.py": "evaluate/"}.get(file, "train/")
        lines.append(f'  File "/src/steadyspike/{folder}{file}", line 12 in {name}')
    assert phase_of("\n".join(lines)) == phase


@pytest.mark.parametrize("how", DAMAGES)
def test_every_damage_is_one(how: object, tmp_path: Path) -> None:
    path, before = both(tmp_path / "checkpoint.pt")
    save_checkpoint(path, tiny_experiment(), {"numbers": list(range(9000))})
    assert is_whole(path)
    assert not is_whole(before)
    for seed in range(20):
        before.write_bytes(path.read_bytes())
        damage.damage(before, how, random.Random(seed))  # type: ignore[arg-type]
        assert not is_whole(before)


def test_differences_are_bytes_missing_files_and_files_too_many() -> None:
    assert differences({"a": b"1", "b": b"2", "c": b"3"}, {"a": b"1", "b": b"", "d": b"4"}) == [
        "b",
        "c",
        "d",
    ]
