"""Several processes train as one does: the same trajectory, the same scores, one who writes."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from several_ranks import CONFIGURATIONS, experiment, trajectory
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


@pytest.fixture(scope="module", params=[2, 4])
def several(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The folder that ``world`` processes wrote, and how many they were."""
    world: int = request.param
    folder = tmp_path_factory.mktemp(f"ranks{world}")
    started = run_ranks(world, [str(HERE / "several_ranks.py"), str(folder)])
    for process in started:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    return world, folder


@pytest.fixture(scope="module")
def alone() -> dict[str, dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {name: trajectory(experiment(name), ALONE) for name in CONFIGURATIONS}
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.slow
def test_the_trajectory_of_one(name: str, several: Any, alone: dict[str, Any]) -> None:
    world, folder = several
    if not (folder / f"{name}.pt").exists():
        assert (name, world) == ("resnet19", 4)
        return
    theirs, ours = torch.load(folder / f"{name}.pt", weights_only=False), alone[name]
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


@pytest.mark.parametrize("name", CONFIGURATIONS)
@pytest.mark.slow
def test_all_hold_the_same_bits(name: str, several: Any) -> None:
    world, folder = several
    digests = {path.read_text() for path in folder.glob(f"{name}.digest.*")}
    assert len(digests) == (0 if (name, world) == ("resnet19", 4) else 1)


def test_some_fell_back(alone: dict[str, Any]) -> None:
    """Or the configuration that is there for it would show nothing."""
    assert alone["osr_that_falls_back"]["rows"][0].osr_fallbacks > 0


@pytest.mark.parametrize(("total", "world"), [(8, 2), (7, 2), (1, 4), (0, 2), (9, 4)])
def test_shares_cover_a_batch_once(total: int, world: int) -> None:
    batch = torch.arange(total)
    shards = [Shard.of(total, rank, world, all_gather) for rank in range(world)]
    assert torch.equal(torch.cat([shard.of_whole(batch) for shard in shards]), batch)
    assert max(shards[0].rows) - min(shards[0].rows) <= 1
    assert all(shard.total == total for shard in shards)
