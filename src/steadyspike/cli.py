"""The command `steadyspike`: its arguments and its exit statuses."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn, TextIO

from steadyspike import __version__, commands
from steadyspike.bench.options import add_arguments
from steadyspike.console import notify
from steadyspike.errors import UserError

# Arguments that several subcommands take: option, metavar, default, summary.
PARAMS = ("--params", "FILE", "params.yaml", "the file that defines the experiments")
RUNS = ("--runs", "DIR", "runs", "the folder of the results, with one folder for each experiment")
# Written out, since `--help` must not load the modules that know them.
DATA_SETS = (
    "cifar10, cifar100, cifar10_dvs, dvs_gesture, embedded, fashion_mnist, image_folder, imagenet"
)
NETWORKS = "vggsnn, resnet19, sew_resnet34, nf_resnet34"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one subcommand and exit: 0, 1 for a failed check, 2 for a user's mistake."""
    # Python sets these to None where the parent closed them, as some queues do.
    sys.stdout, sys.stderr = sys.stdout or _devnull(), sys.stderr or _devnull()
    try:
        options = parser().parse_args(arguments)
        sys.exit(options.run(options) or 0)
    except UserError as error:
        _report(str(error))
        sys.exit(error.exit_status)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does.
        sys.stderr.close()
        sys.exit(141)
    except OSError as error:
        # For example a folder that may not be written, or a broken disk.
        _report(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        _report("not enough memory: lower model.widths, training.batch or training.chunk")
        sys.exit(2)


class _OneLineEach(argparse.HelpFormatter):
    """Leaves room for the longest command, which argparse measures without its indentation."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)
        self._action_max_length = len("    import-released")


def _devnull() -> TextIO:
    return Path(os.devnull).open("w")


def _report(message: str) -> None:
    """One line on standard error, without control characters that a quoted file may contain."""
    line = "".join(letter if letter.isprintable() else " " for letter in message)
    notify(f"steadyspike: {line}")


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        _, _, subcommand = self.prog.partition(" ")
        where = f"{subcommand}: " if subcommand else ""
        raise UserError(f"{where}{message} (see {self.prog} --help)")


def parser() -> Parser:
    """The command line."""
    command = Parser(
        prog="steadyspike",
        description="Online training of spiking neural networks, with the same bits in every run.",
        epilog="`steadyspike COMMAND --help` explains each; `make train` runs a pipeline.",
        formatter_class=_OneLineEach,
    )
    command.add_argument("--version", action="version", version=f"steadyspike {__version__}")
    subcommands = command.add_subparsers(required=True, title="commands", metavar="COMMAND")

    doctor = _add(subcommands, commands.doctor, "check what training needs of this machine")
    _add_path(doctor, *PARAMS)
    form = doctor.add_mutually_exclusive_group()
    form.add_argument(
        "--brief", action="store_true", help="print three lines, for a log, without loading torch"
    )
    form.add_argument("--json", action="store_true", help="print the findings as JSON")
    doctor.add_argument(
        "--strict", action="store_true", help="exit with 1 if an experiment cannot be trained here"
    )

    fetch = _add(subcommands, commands.fetch, "download a data set, or check the one that is here")
    fetch.add_argument("dataset", metavar="NAME", help=f"the data set: {DATA_SETS}")
    fetch.add_argument(
        "--manifest", type=Path, metavar="FILE", help="also write its checksums and counts here"
    )
    option, metavar, default, _ = PARAMS
    summary = "for image_folder: the file whose dataset.path names the folder"
    _add_path(fetch, option, metavar, default, summary)

    train = _add(subcommands, commands.train, "train an experiment, or finish an interrupted run")
    train.add_argument("experiment", metavar="EXPERIMENT", help="its name in params.yaml")
    train.add_argument(
        "--stop-after",
        type=_duration,
        metavar="TIME",
        help="write a checkpoint and exit with 143 after this time, for example 50m or 1h30m",
    )
    train.add_argument(
        "--checkpoint-every",
        type=_duration,
        default="5m",
        metavar="TIME",
        help="write a checkpoint this often within an epoch; 0s: after every batch (default: 5m)",
    )
    _add_path(train, *PARAMS)
    _add_path(train, *RUNS)

    # All that follows `launch` is for torchrun's parser: no argument starts with this prefix.
    summary = "train in several processes, on one machine or many"
    launch = subcommands.add_parser("launch", help=summary, prefix_chars="\0", add_help=False)
    launch.set_defaults(run=commands.launch)
    launch.add_argument("arguments", nargs="*", help="options of torchrun, then train EXPERIMENT")

    evaluate = _add(subcommands, commands.evaluate, "measure a trained experiment")
    chosen = evaluate.add_mutually_exclusive_group(required=True)
    chosen.add_argument(
        "experiment",
        metavar="EXPERIMENT",
        nargs="?",
        help="its name in params.yaml; or a folder written by `export --card`, whose accuracy is "
        "printed",
    )
    chosen.add_argument(
        "--memory",
        nargs=2,
        metavar=("ONLINE", "BPTT"),
        help="instead count the bytes that these two experiments keep for the backward pass, "
        "for T from 2 to 30",
    )
    evaluate.add_argument(
        "--threshold",
        choices=("live", "fixed", "layer"),
        help="only print the accuracy with OTS's thresholds computed from each batch (live), "
        "those of each step learned in training (fixed), or their mean in each layer (layer)",
    )
    evaluate.add_argument(
        "--batch", type=positive, metavar="N", help="only print the accuracy at this batch size"
    )
    evaluate.add_argument(
        "--weights", type=Path, metavar="FILE", help="only print the accuracy of these weights"
    )
    _add_path(evaluate, *PARAMS)
    _add_path(evaluate, *RUNS)

    report = _add(subcommands, commands.report, "write tables and figures of what has been run")
    _add_path(report, "--pipeline", "DIR", ".", "report on the pipeline in this folder")
    report.add_argument(
        "--paper",
        action="store_true",
        help="report on the paper's tables and figures, from all that was run in pipelines/",
    )
    report.add_argument(
        "--list",
        action="store_true",
        help="only print each number of the paper, whether it has been run, and its command",
    )
    report.add_argument(
        "--crate",
        action="store_true",
        help="only describe the finished pipeline for archives, in ro-crate-metadata.json beside "
        "its dvc.lock",
    )
    report.add_argument(
        "--out", type=Path, metavar="DIR", help="the folder to write (default: the pipeline's own)"
    )

    predict = _add(subcommands, commands.predict, "classify image files with a trained network")
    _add_run(
        predict, "a finished run: its folder, its name in runs/, or what `export --card` wrote"
    )
    predict.add_argument(
        "images", type=Path, metavar="IMAGE", nargs="+", help="PNG or JPEG files of any size"
    )
    predict.add_argument(
        "--json", action="store_true", help="print every class, and operations with their energy"
    )

    export = _add(subcommands, commands.export, "write a trained network for other software")
    _add_run(export, "a finished run: its folder, or its name in runs/")
    form = export.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="the file to write, whose name ends in .nir (for simulators and neuromorphic chips), "
        ".onnx, or .pt2 (torch.export)",
    )
    form.add_argument(
        "--card",
        type=Path,
        metavar="DIR",
        help="write a folder to share: weights, config.json and a model card, which `predict` and "
        "`evaluate` read",
    )
    export.add_argument(
        "--threshold",
        choices=("layer",),
        help="use one threshold a layer, the mean of those that OTS learned for each step",
    )

    released = _add(
        subcommands, commands.import_released, "convert a checkpoint of the paper's released code"
    )
    released.add_argument(
        "checkpoint", type=Path, metavar="CHECKPOINT", help="the file that its training wrote"
    )
    released.add_argument("--model", required=True, metavar="NAME", help=f"its network: {NETWORKS}")
    released.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="the safetensors file to write"
    )

    verify = _add(
        subcommands,
        commands.verify,
        "retrain the first batches and compare every weight",
    )
    verify.add_argument(
        "experiments", metavar="EXPERIMENT", nargs="*", help="their names (default: all)"
    )
    _add_path(verify, *PARAMS)
    _add_path(verify, "--digests", "FILE", "reports/digests.json", "the recorded hashes")
    verify.add_argument(
        "--batches", type=positive, metavar="N", help="compare at most N (default: all recorded)"
    )

    bench = _add(subcommands, commands.bench, "measure speed and memory of the training step")
    add_arguments(bench)
    return command


def _add(
    subcommands: "argparse._SubParsersAction[Parser]",
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
) -> argparse.ArgumentParser:
    name = run.__name__.replace("_", "-")
    subcommand = subcommands.add_parser(name, help=summary, description=f"{summary}.".capitalize())
    subcommand.set_defaults(run=run)
    return subcommand


def _add_path(
    subcommand: argparse.ArgumentParser, option: str, metavar: str, default: str, summary: str
) -> None:
    help_ = f"{summary} (default: {default})"
    subcommand.add_argument(option, type=Path, metavar=metavar, default=Path(default), help=help_)


def _add_run(subcommand: argparse.ArgumentParser, summary: str) -> None:
    """A finished run, and the file with its experiment."""
    subcommand.add_argument("run_folder", type=Path, metavar="RUN", help=summary)
    subcommand.add_argument(
        "--params",
        type=Path,
        metavar="FILE",
        help="the file that defines the experiment (default: params.yaml beside its runs)",
    )


def positive(text: str) -> int:
    """A whole number from 1, as argparse's ``type``."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def _duration(text: str) -> float:
    """Seconds of a time such as 1h30m."""
    parts = re.fullmatch(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", text)
    if not text or parts is None:
        raise argparse.ArgumentTypeError(f"expected a time as 50m, 1h30m or 90s, got {text!r}")
    hours, minutes, seconds = (int(part or 0) for part in parts.groups())
    return float((hours * 60 + minutes) * 60 + seconds)
