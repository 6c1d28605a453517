"""The command `steadyspike`: its options, and how it ends."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from steadyspike import __version__, commands
from steadyspike.bench.options import add_options
from steadyspike.console import notify
from steadyspike.errors import UserError

NETWORKS = ("vggsnn", "resnet19", "sew_resnet34", "nf_resnet34")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand and exit: 0, 1 for a check that failed, 2 for a user's mistake."""
    # Closed by who started this, as some queues do: then nobody is told, and all else goes on.
    sys.stdout, sys.stderr = sys.stdout or _nobody(), sys.stderr or _nobody()
    options = parser().parse_args(arguments)
    try:
        sys.exit(options.run(options) or 0)
    except UserError as error:
        _tell(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output left, as `head` does; there is nobody to tell.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        # What no check foresees: a folder that may not be written, a broken disk.
        _tell(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        _tell("not enough memory: smaller model.widths, training.batch or training.chunk need less")
        sys.exit(2)


def _nobody() -> TextIO:
    return Path(os.devnull).open("w")


def _tell(message: str) -> None:
    """One line on standard error, whatever was quoted in it."""
    # A name from a hostile file may hold what a terminal obeys.
    line = "".join(letter if letter.isprintable() else " " for letter in message)
    notify(f"steadyspike: {line}")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="steadyspike",
        description="Online training of spiking neural networks, reproduced bit for bit.",
    )
    command.add_argument("--version", action="version", version=f"steadyspike {__version__}")
    subcommands = command.add_subparsers(required=True, metavar="COMMAND")

    doctor = _add(subcommands, commands.doctor, "look at what training finds on this machine")
    doctor.add_argument("--params", type=Path, default=Path("params.yaml"))
    form = doctor.add_mutually_exclusive_group()
    form.add_argument("--brief", action="store_true", help="three lines for a log, at once")
    form.add_argument("--json", action="store_true", help="the same facts for programs")
    doctor.add_argument(
        "--strict", action="store_true", help="exit with 1 if an experiment cannot be trained here"
    )

    fetch = _add(subcommands, commands.fetch, "download a data set, or check it if it is there")
    fetch.add_argument("dataset", metavar="NAME", help="for example fashion_mnist, embedded")
    fetch.add_argument("--manifest", type=Path, help="also write its sums and counts to this file")

    train = _add(subcommands, commands.train, "train an experiment, or finish an interrupted run")
    train.add_argument("experiment", metavar="EXPERIMENT")
    train.add_argument(
        "--stop-after",
        type=_duration,
        metavar="TIME",
        help="write a checkpoint and exit with 143 after, for example, 50m or 1h30m",
    )
    train.add_argument(
        "--checkpoint-every",
        type=_duration,
        default="5m",
        metavar="TIME",
        help="also write one this often within an epoch; 0s: after every batch (default: 5m)",
    )
    _add_folders(train)

    # With no character that begins an option, all that follows is torchrun's.
    summary = "train in several processes, on one machine or many"
    launch = subcommands.add_parser("launch", help=summary, prefix_chars="\0", add_help=False)
    launch.set_defaults(run=commands.launch)
    launch.add_argument("arguments", nargs="*")

    evaluate = _add(subcommands, commands.evaluate, "measure a trained experiment")
    chosen = evaluate.add_mutually_exclusive_group(required=True)
    chosen.add_argument("experiment", metavar="EXPERIMENT", nargs="?")
    chosen.add_argument(
        "--memory",
        nargs=2,
        metavar=("ONLINE", "BPTT"),
        help="count the bytes kept for backward at T 2 to 30 by these two experiments",
    )
    evaluate.add_argument(
        "--threshold",
        choices=("live", "fixed"),
        help="only print the accuracy with OTS's thresholds of the batch, or the learned ones",
    )
    evaluate.add_argument("--batch", type=_positive, help="only print the accuracy at this batch")
    evaluate.add_argument(
        "--weights", type=Path, metavar="FILE", help="only print the accuracy of these weights"
    )
    _add_folders(evaluate)

    released = _add(
        subcommands, commands.import_released, "convert a checkpoint of the released code"
    )
    released.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    released.add_argument("--model", required=True, choices=NETWORKS)
    released.add_argument("--out", required=True, type=Path, metavar="FILE", help="safetensors")

    report = _add(subcommands, commands.report, "write every table and figure")
    report.add_argument(
        "--pipeline",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="of the pipeline in this folder (default: .)",
    )
    report.add_argument(
        "--paper", action="store_true", help="the paper's, of whatever pipelines/ has run"
    )
    report.add_argument(
        "--list", action="store_true", help="only print each of the paper's cells and its command"
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="(default: reports, in that folder)"
    )

    bench = _add(subcommands, commands.bench, "measure speed and memory of the training step")
    add_options(bench)

    verify = _add(subcommands, commands.verify, "train the first batches again, compare every bit")
    verify.add_argument("experiments", metavar="EXPERIMENT", nargs="*", help="(default: all)")
    verify.add_argument("--params", type=Path, default=Path("params.yaml"))
    verify.add_argument("--digests", type=Path, default=Path("reports/digests.json"))
    verify.add_argument("--batches", type=_positive, help="at most so many (default: all recorded)")
    return command


def _add(
    subcommands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
) -> argparse.ArgumentParser:
    name = run.__name__.replace("_", "-")
    subcommand = subcommands.add_parser(name, help=summary, description=f"{summary}.".capitalize())
    subcommand.set_defaults(run=run)
    return subcommand


def _add_folders(subcommand: argparse.ArgumentParser) -> None:
    subcommand.add_argument("--params", type=Path, default=Path("params.yaml"))
    subcommand.add_argument("--runs", type=Path, default=Path("runs"), help="(default: runs)")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


_positive.__name__ = "positive integer"  # as argparse's message calls it


def _duration(text: str) -> float:
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if not text or parts is None:
        raise ValueError
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return float((hours * 60 + minutes) * 60 + seconds)


_duration.__name__ = "time such as 50m, 1h30m or 90s"  # as argparse's message calls it
