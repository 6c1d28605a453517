"""A sample of every part that `make reliability` measures."""

import random
import shutil
import signal
from pathlib import Path

import changes
import kills
import places
import pytest
import stops
from project import Failure, Project, ended, is_whole, wait_for_write

from steadyspike.train.checkpoint import save_checkpoint
from tiny import tiny_experiment

pytestmark = pytest.mark.slow


def test_killed_while_writing_a_checkpoint(
    project: Project, whole: Project, tmp_path: Path
) -> None:
    run = project.fresh(tmp_path / "run")
    for _ in range(2):
        process = run.start(*stops.TRAIN)
        assert wait_for_write(process, run.run_folder, 3)
        process.kill()
        assert ended(process)[0] == kills.SIGKILLED
    assert 1 <= len(kills.whole_checkpoints(run)) <= 2
    run.finish(*stops.TRAIN)
    run.must_equal(whole.results())


@pytest.mark.parametrize("number", stops.SIGNALS)
def test_stopped_by_a_signal(
    number: signal.Signals, project: Project, whole: Project, tmp_path: Path
) -> None:
    run = project.fresh(tmp_path / "run")
    assert stops.stop(run, number, writes=9) < stops.MOST_SECONDS
    run.finish(*stops.TRAIN)
    run.must_equal(whole.results())


def test_damaged_or_changed_after_a_stop(project: Project, whole: Project, tmp_path: Path) -> None:
    numbers = random.Random(1)
    stopped = changes.stopped_within_an_epoch(project, tmp_path / "run", stops.TRAIN, numbers)
    changed = stopped.copy(tmp_path / "changed")
    changes.must_be_refused(changed, {"training.learning_rate": 0.2, "model.tau": 1.5})
    damaged = stopped.copy(tmp_path / "damaged")
    stops.damage(damaged.checkpoint, "one bit", numbers)
    stops.resumes_from_before(damaged)
    damaged.must_equal(whole.results())
    stopped.finish(*changes.with_chunk(stopped, 1))
    assert changes.must_be_close(whole, stopped) <= changes.ROUNDING


@pytest.mark.skipif(not shutil.which("taskset"), reason="taskset is not installed")
def test_the_committed_digests_with_everything_changed(tmp_path: Path) -> None:
    place = places.all_together(places.places(tmp_path))
    row = places.verified(places.REPOSITORY, place, ["osr_ots"], batches=1)
    assert row.holds


def test_a_difference_is_a_failure(whole: Project, tmp_path: Path) -> None:
    """Else every row would hold."""
    other = whole.copy(tmp_path / "other")
    other.must_equal(whole.results())
    (other.run_folder / "history.csv").write_text("")
    with pytest.raises(Failure, match=r"history\.csv"):
        other.must_equal(whole.results())
    with pytest.raises(Failure):
        changes.must_be_close(whole, other)
    with pytest.raises(Failure):
        changes.must_be_refused(other, {"training.learning_rate": 0.2})


@pytest.mark.parametrize("how", stops.DAMAGES)
def test_damage_is_noticed(how: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, tiny_experiment(), {"numbers": list(range(9000))})
    whole = path.read_bytes()
    assert is_whole(path)
    for seed in range(20):
        path.write_bytes(whole)
        stops.damage(path, how, random.Random(seed))
        assert not is_whole(path)
