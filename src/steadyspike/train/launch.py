"""`steadyspike launch`: runs `steadyspike train` under torchrun."""

import argparse
import multiprocessing
import os
import socket
import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import NoReturn

from steadyspike.console import notify
from steadyspike.errors import UserError, first_line
from steadyspike.train.signals import LIMIT, on_arrival


class RendezvousFailed(UserError):
    """The machines did not all meet in time; the same command may succeed later."""

    exit_status = 1


MOST_PORT = 65535
DEFAULT_PORT = 29400  # of torch's rendezvous c10d
STORE_SECONDS = 10.0  # limit for a rendezvous to answer; another program never does

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


def launch(arguments: Sequence[str], check: Callable[[Sequence[str]], object]) -> int:
    """Run ``arguments`` (torchrun's options, then `train` and its own); the exit status.

    ``check`` is given `train` and what follows, before any process starts, and raises UserError.

    Raises:
        UserError: an option is invalid, or a port in use.
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
    torchrun = get_args_parser()
    torchrun.error = _refuse  # type: ignore[method-assign]
    options = torchrun.parse_args(list(arguments))
    command, options.module = options.training_script, True
    if command != "train":
        raise UserError(f"launch: expected the command train, got {command!r}")
    _check_options(options)
    if options.rdzv_backend == "c10d" and not options.standalone:
        _check_store(options.rdzv_endpoint or "localhost")
    check([command, *options.training_script_args])
    options.training_script = "steadyspike"
    options.training_script_args = [command, *options.training_script_args]
    # torchrun would set 1 and print a warning; `pin_cpu` decides the threads anyway.
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    ended = threading.Event()

    def end(number: int) -> None:
        """End this process too where torch goes on waiting, as for other machines."""
        if not ended.wait(LIMIT + 1.5):  # its training processes end within `LIMIT`
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
    except Exception as error:  # torchrun checks its options by whatever fails first
        if "EADDRINUSE" in str(error) or "address already in use" in str(error).lower():
            raise UserError(
                f"launch: port {options.master_port} is in use on this machine: choose another"
                " with --master-port, or use --standalone, which finds a free one"
            ) from error
        raise UserError(f"launch: torchrun: {first_line(error)}") from error
    return 0


def _refuse(message: str) -> NoReturn:
    """Instead of the usage of all 40 options."""
    raise UserError(f"launch: {message}; expected options of torchrun, then train EXPERIMENT")


def _check_options(options: argparse.Namespace) -> None:
    """Raises UserError for an invalid count, port or address."""
    machines, processes = str(options.nnodes), str(options.nproc_per_node)
    least_and_most = machines.split(":")
    counts = [int(part) for part in least_and_most if _is_count(part)]
    if len(least_and_most) > 2 or len(counts) < len(least_and_most) or counts != sorted(counts):
        raise UserError(
            f"--nnodes: expected how many machines, as 2, or from 1 to 4, as 1:4; got {machines!r}"
        )
    if processes == "gpu":
        import torch

        if not torch.cuda.is_available():
            raise UserError("--nproc-per-node gpu: torch finds no GPU here; expected a number")
    elif processes not in ("auto", "cpu") and not _is_count(processes):
        raise UserError(
            "--nproc-per-node: expected how many processes on this machine, gpu or auto;"
            f" got {processes!r}"
        )
    for option, value, most in (
        ("--node-rank", options.node_rank, counts[-1] - 1),
        ("--master-port", options.master_port, MOST_PORT),
        ("--max-restarts", options.max_restarts, 10**6),
    ):
        if value is not None and not 0 <= value <= most:
            raise UserError(f"{option}: expected 0 to {most}, got {value}")
    endpoint = options.rdzv_endpoint
    host, colon, port = endpoint.rpartition(":") if ":" in endpoint else (endpoint, "", "")
    if endpoint and (not host or (colon and not (_is_count(port) and int(port) <= MOST_PORT))):
        raise UserError(f"--rdzv-endpoint: expected HOST:PORT, got {endpoint!r}")


def _check_store(endpoint: str) -> None:
    """Raises UserError if another program has the port: torch would wait for it for ever."""
    host, _, port = (endpoint if ":" in endpoint else f"{endpoint}:{DEFAULT_PORT}").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError:
        return  # nobody yet, as before the first machine has come
    # In a process of its own, since torch waits where neither a timeout nor a thread gets through.
    store = multiprocessing.get_context("fork").Process(target=_join_store, args=(host, int(port)))
    store.start()
    store.join(STORE_SECONDS)
    if store.exitcode != 0:
        store.kill()
        raise UserError(
            f"--rdzv-endpoint {endpoint}: another program has this port, or a network device"
            " answers in its place: choose another port, the same on all machines"
        )


def _join_store(host: str, port: int) -> None:
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what fails here is reported above
    TCPStore(host, port, is_master=False, timeout=timedelta(seconds=STORE_SECONDS))


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 7 and int(text) >= 1
