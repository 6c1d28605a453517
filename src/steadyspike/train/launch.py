"""`steadyspike launch`: runs `steadyspike train` under torchrun."""

import os
import threading
from collections.abc import Sequence

from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.train.signals import LIMIT, on_arrival


class RendezvousFailed(UserError):
    """The machines did not all meet in time; the same command may succeed later."""

    exit_status = 1


HELP = """usage: steadyspike launch [OPTION OF TORCHRUN]... train EXPERIMENT [ARGUMENT]...

Trains in several processes, on one machine or many, with the results of a single process up
to rounding. It runs torchrun with `-m steadyspike` and takes its options (torchrun --help).

On one machine:

  steadyspike launch --nproc-per-node 2 train osr_ots

On two, the same line on both:

  steadyspike launch --nnodes 2 --rdzv-backend c10d --rdzv-endpoint first-host:29400 \\
      --rdzv-id any-name --max-restarts 3 train osr_ots

With any number of machines. One that was killed joins again by the same command, and all resume
from the last checkpoint.
"""


def launch(arguments: Sequence[str]) -> int:
    """Run ``arguments`` (torchrun's options, then `train` and its own); the exit status.

    Raises:
        RendezvousFailed: the machines did not all meet in time; names the address.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0
    # With a shared store, a restarted machine would meet in the store of an earlier round, and
    # count its attempts differently from the others: they would wait for each other.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    # While a host is not up yet, torch prints a C++ stack trace for every attempt to connect.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError
    from torch.distributed.run import get_args_parser, run

    # torchrun's parser takes the first positional argument as the program.
    options = get_args_parser().parse_args(list(arguments))
    command, options.module = options.training_script, True
    if command != "train":
        raise UserError(f"launch: expected the command train, got {command!r}")
    options.training_script = "steadyspike"
    options.training_script_args = [command, *options.training_script_args]
    # torchrun would set 1 and print a warning; `pin_cpu` decides the threads anyway.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    ended = threading.Event()

    def end(number: int) -> None:
        """Also while torch waits for other machines; its processes have ended by then."""
        if not ended.wait(LIMIT + 1.5):
            os._exit(128 + number)

    try:
        with on_arrival(end, ended):
            run(options)
    except RendezvousError as error:
        raise RendezvousFailed(
            f"--rdzv-endpoint {options.rdzv_endpoint}: {options.nnodes} machines did not meet "
            f"there in time: is the first one running, and is that its name and a port that the "
            f"others can reach? ({type(error).__name__})"
        ) from error
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        notify(f"steadyspike: rank {rank} ended with status {failure.exitcode}")
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as stopped:  # its processes got the signal and wrote a checkpoint
        return 128 + int(stopped.sigval)
    return 0
