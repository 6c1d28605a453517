"""The processes that train one experiment together, started by torchrun, each with its rows."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from steadyspike.errors import UserError
from steadyspike.snn.shard import Shard

#: How long a process waits for its fellows, at the start and in every exchange: longer than the
#: slowest test split takes one of them more than another.
PATIENCE = timedelta(minutes=5)


def all_gather(mine: Tensor) -> Tensor:
    """The tensors of all processes, which have the shape of ``mine``: (ranks, ...)."""
    mine = mine.contiguous()
    everyone = mine.new_empty((dist.get_world_size(), *mine.shape))
    dist.all_gather(list(everyone.unbind()), mine)
    return everyone


class Abandoned(UserError):
    """Another process of this run is gone; torchrun starts all again from the checkpoint."""

    exit_status = 1


@dataclass(frozen=True)
class Ranks:
    """Which of ``world`` processes this is. Every method is one exchange: all must call it alike.

    Sums are the same bits on every process, whatever the machines.
    """

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def writes(self) -> bool:
        """Whether this process writes files and talks to the user: one of them does."""
        return self.rank == 0

    def shard(self, total: int) -> Shard | None:
        """This process's rows of a batch of ``total``; None if it is alone."""
        return None if self.alone else Shard.of(total, self.rank, self.world, all_gather)

    def sum(self, tensor: Tensor) -> None:
        """Adds up everybody's tensor, in place."""
        if not self.alone:
            dist.all_reduce(tensor)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Adds up the gradients of everybody's rows, in place: one exchange for all of them."""
        if self.alone:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        parts = together.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def most(self, number: int) -> int:
        """The greatest of everybody's numbers. On the processor: no GPU is waited for."""
        if self.alone:
            return number
        told = torch.tensor(number, dtype=torch.int64)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def everybodys(self, number: int) -> list[int]:
        """Everybody's number, in the order of the ranks."""
        if self.alone:
            return [number]
        return [int(each) for each in all_gather(torch.tensor(number, dtype=torch.int64))]

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Everybody's tensor becomes that of rank ``source``, in place."""
        if not self.alone:
            dist.broadcast(tensor, source)

    def broadcast_bytes(self, raw: bytes, source: int) -> bytes:
        """The bytes of rank ``source``, to everybody."""
        if self.alone:
            return raw
        size = torch.tensor(len(raw), dtype=torch.int64)
        dist.broadcast(size, source)
        if self.rank == source:
            content = torch.frombuffer(bytearray(raw), dtype=torch.uint8)
        else:
            content = torch.empty(int(size), dtype=torch.uint8)
        dist.broadcast(content, source)
        return content.numpy().tobytes()


ALONE = Ranks()


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, joined for the body; without torchrun, this one alone.

    Exchanges go by gloo between processors and by NCCL between GPUs; each process of a machine
    takes a GPU of its own.

    Raises:
        UserError: fewer GPUs here than processes, or not everybody came in time; names the address.
        Abandoned: another process ended before the body did.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    backend = "gloo"
    if device == "cuda":
        take_gpu(int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
    except (dist.DistError, RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise UserError(
            f"{address}: expected {world} processes to meet there within "
            f"{PATIENCE.seconds} s: {_first_line(error)}"
        ) from error
    try:
        yield Ranks(dist.get_rank(), world)
    except RuntimeError as error:
        if not _lost_connection(error):
            raise
        raise Abandoned(
            f"rank {dist.get_rank()} of {world}: another process of this run is gone; "
            "the run goes on from its checkpoint when all have started again"
        ) from error
    finally:
        dist.destroy_process_group()


def take_gpu(place: int, processes: int) -> None:
    """This process's GPU becomes torch's current one; UserError where there are too few."""
    if not torch.cuda.is_available():
        return  # told by who asks for the device
    if torch.cuda.device_count() < processes:
        raise UserError(
            f"--nproc-per-node: expected at most {torch.cuda.device_count()}, the GPUs of this "
            f"machine, got {processes}"
        )
    torch.cuda.set_device(place)


def _lost_connection(error: RuntimeError) -> bool:
    said = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in said for word in ("gloo", "nccl", "connection", "process group")
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
