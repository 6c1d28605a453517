"""Several processes that train one experiment together, started by torchrun."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from steadyspike.errors import UserError, reason
from steadyspike.snn.shard import Shard
from steadyspike.variables import torchrun

#: Limit of every exchange and of the start. Longer than one process may need more than another to
#: evaluate its part of the test split.
TIMEOUT = timedelta(minutes=5)


class PeerLost(UserError):
    """Another process of this run has ended; torchrun restarts all from the checkpoint."""

    exit_status = 1


def all_gather(own: Tensor) -> Tensor:
    """The tensors of all processes, all of one shape: (...) to (ranks, ...)."""
    own = own.contiguous()
    gathered = own.new_empty((dist.get_world_size(), *own.shape))
    dist.all_gather(list(gathered.unbind()), own)
    return gathered


@dataclass(frozen=True)
class Ranks:
    """This process's rank among ``world`` processes.

    Methods that communicate must be called by all processes in the same order. Sums are the same
    bits in every process.
    """

    rank: int = 0
    world: int = 1

    @property
    def alone(self) -> bool:
        return self.world == 1

    @property
    def writes(self) -> bool:
        """Whether this is the process that writes files and messages."""
        return self.rank == 0

    def shard(self, total: int) -> Shard | None:
        """This process's rows of a batch of ``total``; None if it is alone."""
        return None if self.alone else Shard.of(total, self.rank, self.world, all_gather)

    def sum(self, tensor: Tensor) -> None:
        """Sum over all processes, in place."""
        if not self.alone:
            dist.all_reduce(tensor)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum the gradients over all processes, in place, with one exchange for all of them."""
        if self.alone:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def max(self, number: int) -> int:
        """The maximum over all processes, exchanged between processors: no GPU is waited for."""
        return max(self.gather(number))

    def gather(self, number: int) -> list[int]:
        """The numbers of all processes, by rank."""
        if self.alone:
            return [number]
        return all_gather(torch.tensor(number, dtype=torch.int64)).tolist()

    def broadcast(self, tensor: Tensor, source: int) -> None:
        """Overwrite the tensor with that of rank ``source``."""
        if not self.alone:
            dist.broadcast(tensor, source)

    def broadcast_bytes(self, raw: bytes, source: int) -> bytes:
        """The bytes of rank ``source``."""
        if self.alone:
            return raw
        content = [raw]
        dist.broadcast_object_list(content, source, device=torch.device("cpu"))
        return content[0]


ALONE = Ranks()


@contextmanager
def process_group(device: str) -> Iterator[Ranks]:
    """Joins the processes that torchrun started; without torchrun this process is alone.

    Processors exchange by gloo, GPUs by NCCL; each process of a machine has a GPU of its own.

    Raises:
        UserError: this machine has fewer GPUs than processes, or some processes did not come in
            time; names the address.
        PeerLost: another process ended before the body did.
    """
    started = torchrun()
    if started is None:
        yield ALONE
        return
    world = started.world
    backend = "gloo"
    if device == "cuda":
        select_gpu(started.local_rank, started.local_world)
        backend = "cpu:gloo,cuda:nccl"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (dist.DistError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{started.address}: expected {world} processes to meet there within"
            f" {TIMEOUT.seconds} s: {reason(error)}"
        ) from error
    try:
        yield Ranks(dist.get_rank(), world)
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise PeerLost(
            f"rank {dist.get_rank()} of {world}: another process of this run has ended; the run "
            "resumes from its checkpoint once all have started again"
        ) from error
    finally:
        dist.destroy_process_group()


def select_gpu(index: int, processes: int) -> None:
    """Make GPU ``index`` torch's current device; UserError with fewer GPUs than processes."""
    if not torch.cuda.is_available():
        return  # `check_device` reports it
    if torch.cuda.device_count() < processes:
        raise UserError(
            f"--nproc-per-node: expected at most {torch.cuda.device_count()}, the GPUs of this "
            f"machine, got {processes}"
        )
    torch.cuda.set_device(index)


def _is_lost_connection(error: RuntimeError) -> bool:
    message = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in message for word in ("gloo", "nccl", "connection", "process group")
    )
