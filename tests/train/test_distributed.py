"""Several processes train as one does: the same trajectory, the same scores, one who writes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from several_ranks import CONFIGURATIONS, UNEVEN, experiment, trajectory
from steadyspike.snn.shard import Shard
from steadyspike.train.distributed import ALONE, all_gather
from tiny import free_port

HERE = Path(__file__).parents[1]  # tests/


def run_ranks(world: int, arguments: list[str], **variables: str) -> list[subprocess.Popen[str]]:
    """Start ``world`` processes as torchrun would."""
    port = str(free_port())
    return [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={
                **os.environ,
                "PYTHONPATH": f"{HERE.parent / 'src'}:{HERE}",
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                **variables,
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """The folders that two and three processes wrote."""
    folders = {}
    for world in (2, 3):
        folders[world] = tmp_path_factory.mktemp(f"ranks{world}")
        for process in run_ranks(world, [str(HERE / "several_ranks.py"), str(folders[world])]):
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    return folders


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    return {name: trajectory(experiment(name), ALONE) for name in CONFIGURATIONS}


CASES = [*((2, name) for name in CONFIGURATIONS), *((3, name) for name in UNEVEN)]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "name"), CASES)
def test_the_trajectory_of_one(
    world: int, name: str, several: dict[int, Path], alone: dict[str, Any]
) -> None:
    """To rounding, and every process holds the same bits."""
    theirs = torch.load(several[world] / f"{name}.pt", weights_only=False)
    ours = alone[name]
    assert len(theirs["weights"]) == len(ours["weights"]) > 5
    for number, (a, b) in enumerate(zip(theirs["weights"], ours["weights"], strict=True)):
        for key in b:
            torch.testing.assert_close(
                a[key], b[key], rtol=1e-9, atol=1e-9, msg=lambda m, n=number, k=key: f"{n} {k}: {m}"
            )
    for a, b in zip(theirs["rows"], ours["rows"], strict=True):
        assert a.osr_fallbacks == b.osr_fallbacks
        assert a.test_accuracy == b.test_accuracy
        assert a.train_accuracy == b.train_accuracy
        assert a.train_loss == pytest.approx(b.train_loss, rel=1e-9)
    assert theirs["score"] == pytest.approx(ours["score"], rel=1e-9)
    digests = [path.read_text() for path in several[world].glob(f"{name}.digest.*")]
    assert len(digests) == world
    assert len(set(digests)) == 1


def test_that_configuration_falls_back(alone: dict[str, Any]) -> None:
    assert alone["osr_that_falls_back"]["rows"][0].osr_fallbacks > 0


@pytest.mark.parametrize(("total", "world"), [(8, 2), (7, 2), (1, 4), (0, 2), (9, 4)])
def test_shares_cover_a_batch_once(total: int, world: int) -> None:
    batch = torch.arange(total)
    shards = [Shard.of(total, rank, world, all_gather) for rank in range(world)]
    assert torch.equal(torch.cat([shard.of_whole(batch) for shard in shards]), batch)
    assert max(shards[0].rows) - min(shards[0].rows) <= 1
    assert all(shard.total == total for shard in shards)
