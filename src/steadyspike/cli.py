"""The command `steadyspike`. Everything heavy is imported by the subcommand that needs it."""

import argparse
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from steadyspike import __version__
from steadyspike.bench.options import add_options
from steadyspike.errors import UserError
from steadyspike.pins import keep_freed_memory, pin_cpu

NETWORKS = ("vggsnn", "resnet19", "sew_resnet34", "nf_resnet34")

if TYPE_CHECKING:
    from steadyspike.data import Dataset
    from steadyspike.experiment import Experiment


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
    print(f"steadyspike: {line}", file=sys.stderr)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command = argparse.ArgumentParser(
        prog="steadyspike",
        description="Online training of spiking neural networks, reproduced bit for bit.",
    )
    command.add_argument("--version", action="version", version=f"steadyspike {__version__}")
    commands = command.add_subparsers(required=True, metavar="COMMAND")

    doctor = _add(commands, "doctor", _doctor, "look at what training finds on this machine")
    doctor.add_argument("--params", type=Path, default=Path("params.yaml"))
    form = doctor.add_mutually_exclusive_group()
    form.add_argument("--brief", action="store_true", help="three lines for a log, at once")
    form.add_argument("--json", action="store_true", help="the same facts for programs")
    doctor.add_argument(
        "--strict", action="store_true", help="exit with 1 if an experiment cannot be trained here"
    )

    fetch = _add(commands, "fetch", _fetch, "download a data set, or check it if it is there")
    fetch.add_argument("dataset", metavar="NAME", help="for example fashion_mnist, embedded")
    fetch.add_argument("--manifest", type=Path, help="also write its sums and counts to this file")

    train = _add(commands, "train", _train, "train an experiment, or finish an interrupted run")
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
    launch = commands.add_parser("launch", help=summary, prefix_chars="\0", add_help=False)
    launch.set_defaults(run=_launch)
    launch.add_argument("arguments", nargs="*")

    evaluate = _add(commands, "evaluate", _evaluate, "measure a trained experiment")
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
        commands, "import-released", _import_released, "convert a checkpoint of the released code"
    )
    released.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    released.add_argument("--model", required=True, choices=NETWORKS)
    released.add_argument("--out", required=True, type=Path, metavar="FILE", help="safetensors")

    report = _add(commands, "report", _report, "write every table and figure")
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

    bench = _add(commands, "bench", _bench, "measure speed and memory of the training step")
    add_options(bench)

    verify = _add(commands, "verify", _verify, "train the first batches again, compare every bit")
    verify.add_argument("experiments", metavar="EXPERIMENT", nargs="*", help="(default: all)")
    verify.add_argument("--params", type=Path, default=Path("params.yaml"))
    verify.add_argument("--digests", type=Path, default=Path("reports/digests.json"))
    verify.add_argument("--batches", type=_positive, help="at most so many (default: all recorded)")
    return command


def _add(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    summary: str,
) -> argparse.ArgumentParser:
    subcommand = commands.add_parser(name, help=summary, description=f"{summary}.".capitalize())
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


def _prepare() -> None:
    """Pin everything that decides bits, before and after torch loads."""
    pin_cpu()
    keep_freed_memory()
    from steadyspike.train.determinism import make_deterministic

    make_deterministic()


def _load(options: argparse.Namespace, experiment: "Experiment") -> "Dataset":
    """The experiment's data set; an unknown name is told where it stands."""
    from steadyspike import data

    if experiment.dataset.name not in data.NAMES:
        raise UserError(
            f"{options.params}: experiments.{experiment.name}: dataset.name: expected one of "
            f"{', '.join(data.NAMES)}, got {experiment.dataset.name!r}"
        )
    return data.load(experiment.dataset.name)


def _doctor(options: argparse.Namespace) -> int:
    if options.brief and options.strict:
        raise UserError("--strict: expected without --brief, which looks at less")
    if options.brief:
        from steadyspike.doctor.brief import brief

        print("\n".join(brief()))
        return 0
    from steadyspike.doctor import doctor

    return doctor(options.params, json=options.json, strict=options.strict)


def _fetch(options: argparse.Namespace) -> None:
    from steadyspike import data
    from steadyspike.data.manifest import write_manifest

    path = data.fetch(options.dataset)
    facts = data.manifest_of(options.dataset)
    if options.manifest is not None:
        write_manifest(options.manifest, facts)
    print(f"{options.dataset}: checked ({path})")


def _train(options: argparse.Namespace) -> int | None:
    # A queue's clock runs while torch is imported.
    deadline = None if options.stop_after is None else time.monotonic() + options.stop_after
    from steadyspike.experiment import load_experiment

    experiment = load_experiment(options.params, options.experiment)
    _prepare()
    from steadyspike.train.distribution import joined
    from steadyspike.train.run import CHECKPOINT, train_run
    from steadyspike.train.signals import Stopped

    folder = options.runs / experiment.name
    try:
        with joined(experiment.device) as ranks:
            dataset = _load(options, experiment)
            train_run(experiment, dataset, folder, ranks, deadline, options.checkpoint_every)
    except Stopped as stopped:
        print(
            f"steadyspike: {experiment.name} stopped; the same command goes on from "
            f"{folder / CHECKPOINT}",
            file=sys.stderr,
        )
        return stopped.exit_status
    return None


def _launch(options: argparse.Namespace) -> int:
    from steadyspike.launch import launch

    return launch(options.arguments)


def _evaluate(options: argparse.Namespace) -> None:
    from steadyspike.experiment import load_experiment

    names = options.memory or [options.experiment]
    experiments = [load_experiment(options.params, name) for name in names]
    _prepare()
    from steadyspike.evaluate.run import evaluate_run, measure_memory, measure_weights

    dataset = _load(options, experiments[0])
    folder = options.runs / experiments[0].name
    if options.memory:
        chosen = dict(zip(("online", "bptt"), experiments, strict=True))
        measure_memory(chosen, dataset, options.runs / "memory.csv")
    elif options.threshold or options.batch or options.weights:
        weights = options.weights or folder / "model.safetensors"
        score = measure_weights(experiments[0], dataset, weights, options.threshold, options.batch)
        print(f"accuracy {score.accuracy:.2f} %, loss {score.loss:.6g}")
    else:
        evaluate_run(experiments[0], dataset, folder)


def _import_released(options: argparse.Namespace) -> None:
    _prepare()
    from steadyspike.deploy import import_released

    model = import_released(options.checkpoint, options.model, options.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {options.model} with {parameters:,} parameters")


def _report(options: argparse.Namespace) -> None:
    from steadyspike.report import list_cells, write_paper_report, write_report

    pipelines = Path("pipelines")
    if options.list:
        print("\n".join(list_cells(pipelines)))
        return
    one = options.pipeline != Path() or not options.paper
    if options.out and options.paper and one:
        raise UserError("--out: expected --pipeline or --paper, not both: each has its own folder")
    written = []
    if one:
        written += write_report(options.pipeline, options.out or options.pipeline / "reports")
    if options.paper:
        written += write_paper_report(pipelines, options.out or pipelines / "paper" / "reports")
    for path in written:
        print(path)


def _bench(options: argparse.Namespace) -> None:
    from steadyspike.bench.run import bench

    bench(options)


def _verify(options: argparse.Namespace) -> int:
    from steadyspike.experiment import load_experiment, load_experiments

    names = options.experiments or list(load_experiments(options.params))
    experiments = [load_experiment(options.params, name) for name in names]
    _prepare()
    from steadyspike.verify import verify

    differing = 0
    for experiment in experiments:
        verdict = verify(experiment, _load(options, experiment), options.digests, options.batches)
        if verdict.difference is None:
            print(
                f"{experiment.name}: equal, {verdict.tensors} tensors after batches "
                f"{', '.join(map(str, verdict.batches))}"
            )
        else:
            differing += 1
            print(f"{experiment.name}: DIFFERS: {verdict.difference}")
    return 1 if differing else 0
