"""What each subcommand does. Modules are imported inside, so that `--help` loads none."""

import argparse
import json
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from steadyspike import variables
from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.pins import keep_freed_memory, pin_cpu

if TYPE_CHECKING:
    from steadyspike.data import Dataset
    from steadyspike.train.config import Experiment


def _prepare() -> None:
    """Set all that decides bits, before torch is loaded and after."""
    variables.check()  # before anything takes time
    pin_cpu()
    keep_freed_memory()
    from steadyspike.train.determinism import make_deterministic

    make_deterministic()


def _clean_up_after_ctrl_c() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, where there is something to remove or to restore."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _load(experiment: "Experiment") -> "Dataset":
    from steadyspike import data

    return data.load(experiment.dataset.name, **experiment.dataset.options)


def doctor(options: argparse.Namespace) -> int:
    from steadyspike.doctor import brief, doctor

    if options.brief and options.strict:
        raise UserError("--strict: expected without --brief, which checks less")
    if options.brief:
        print("\n".join(brief()))
        return 0
    return doctor(options.params, as_json=options.json, strict=options.strict)


def fetch(options: argparse.Namespace) -> None:
    from steadyspike import data
    from steadyspike.files import write_atomically

    _clean_up_after_ctrl_c()
    path = data.fetch(options.dataset, **_options_in(options.params, options.dataset))
    if options.manifest is not None:
        write_atomically(options.manifest, path.read_bytes())
    print(f"{options.dataset}: checked ({path})")


def _options_in(params: Path, dataset: str) -> dict[str, Any]:
    """The path of a data set that needs one, from the experiments, for `data.fetch`."""
    from steadyspike import data

    if dataset not in data.NAMES or "path" not in data.SOURCES[dataset].required:
        return {}
    from steadyspike.train.config import load_experiments

    used = [experiment.dataset for experiment in load_experiments(params).values()]
    paths = sorted({str(each.path) for each in used if each.name == dataset})
    if len(paths) != 1:
        found = ", ".join(paths) or "none"
        raise UserError(
            f"{params}: dataset.path: expected one of {dataset} in all experiments, found {found}"
        )
    return {"path": paths[0]}


def train(options: argparse.Namespace) -> int | None:
    # Started before torch is imported: a queue's time limit includes that.
    deadline = None if options.stop_after is None else time.monotonic() + options.stop_after
    _prepare()
    from steadyspike.train.config import load_experiment
    from steadyspike.train.distributed import process_group
    from steadyspike.train.run import CHECKPOINT, train_run
    from steadyspike.train.signals import Stopped

    experiment = load_experiment(options.params, options.experiment)
    folder = options.runs / experiment.name
    try:
        with process_group(experiment.device) as ranks:
            dataset = _load(experiment)
            train_run(experiment, dataset, folder, ranks, deadline, options.checkpoint_every)
    except Stopped as stopped:
        checkpoint = folder / CHECKPOINT
        later = f"goes on from {checkpoint}" if checkpoint.exists() else "starts again"
        notify(f"steadyspike: {experiment.name} stopped; the same command {later}")
        return stopped.exit_status
    return None


def launch(options: argparse.Namespace) -> int:
    from steadyspike.train.launch import launch

    return launch(options.arguments, _check_training)


def _check_training(arguments: Sequence[str]) -> None:
    """Refuse once what every process would refuse."""
    from steadyspike.cli import parser
    from steadyspike.train.config import load_experiment

    options = parser().parse_args(arguments)
    load_experiment(options.params, options.experiment)
    variables.check()


def evaluate(options: argparse.Namespace) -> None:
    _prepare()
    from steadyspike.evaluate.memory import measure_memory
    from steadyspike.evaluate.run import evaluate_run, measure_weights
    from steadyspike.evaluate.trained import is_shared
    from steadyspike.train.config import load_experiment

    if options.experiment and not options.weights and is_shared(Path(options.experiment)):
        _evaluate_shared(Path(options.experiment), options)
        return
    names = options.memory or [options.experiment]
    experiments = [load_experiment(options.params, name) for name in names]
    dataset = _load(experiments[0])
    folder = options.runs / experiments[0].name
    if options.memory:
        online, bptt = experiments
        measure_memory(online, bptt, dataset, options.runs / "memory.csv")
    elif options.threshold or options.batch or options.weights:
        weights = options.weights or folder / "model.safetensors"
        score = measure_weights(experiments[0], dataset, weights, options.threshold, options.batch)
        print(f"accuracy {score.accuracy:.2f} %, loss {score.loss:.6g}")
    else:
        evaluate_run(experiments[0], dataset, folder)


def _evaluate_shared(folder: Path, options: argparse.Namespace) -> None:
    from steadyspike.evaluate.trained import measure_shared, open_run, read_config

    experiment, _ = open_run(folder, None)
    score = measure_shared(experiment, folder, _load(experiment), options.threshold, options.batch)
    config = read_config(folder)
    recorded = f"; {config.accuracy:.2f} % where it was trained"
    print(f"accuracy {score.accuracy:.2f} %, loss {score.loss:.6g}{recorded}")


def predict(options: argparse.Namespace) -> None:
    _prepare()
    from steadyspike.evaluate.predict import predict, text
    from steadyspike.evaluate.trained import open_run

    experiment, folder = open_run(options.run_folder, options.params)
    predictions = predict(experiment, folder, options.images)
    if options.json:
        print(json.dumps([each.model_dump() for each in predictions], indent=2))
    else:
        print("\n".join(text(predictions)))


def import_released(options: argparse.Namespace) -> None:
    _prepare()
    from steadyspike.deploy import import_released

    model = import_released(options.checkpoint, options.model, options.out)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{options.out}: {options.model} with {parameters:,} parameters")


def export(options: argparse.Namespace) -> None:
    _prepare()
    from steadyspike.deploy.card import write_card
    from steadyspike.deploy.export import export
    from steadyspike.evaluate.trained import open_run

    experiment, folder = open_run(options.run_folder, options.params)
    if options.card:
        if options.threshold:
            raise UserError("--threshold: expected with --out; a card keeps every threshold")
        config = write_card(experiment, folder, options.card, options.params)
        print(f"{options.card}: {experiment.name}, accuracy {config.accuracy:.2f} %")
        return
    folded = export(experiment, folder, options.out, options.threshold)
    weights = sum(parameter.numel() for parameter in folded.parameters())
    print(f"{options.out}: {len(folded.neurons)} layers of neurons, {weights:,} weights")


def report(options: argparse.Namespace) -> None:
    from steadyspike.report import list_cells, write_crate, write_paper_report, write_report

    pipelines = Path("pipelines")
    if options.list:
        print("\n".join(list_cells(pipelines)))
        return
    if options.crate:
        if options.paper or options.out:
            raise UserError(
                "--crate: expected without --paper and --out: it describes one pipeline"
            )
        print(write_crate(options.pipeline))
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


def bench(options: argparse.Namespace) -> int:
    from steadyspike.bench.run import bench

    _clean_up_after_ctrl_c()
    if options.experiments is not None:
        _prepare()  # as they are trained
    return bench(options)


def verify(options: argparse.Namespace) -> int:
    _prepare()
    from steadyspike.train.config import load_experiment, load_experiments
    from steadyspike.train.verify import verify

    names = options.experiments or list(load_experiments(options.params))
    experiments = [load_experiment(options.params, name) for name in names]
    differing = 0
    for experiment in experiments:
        verdict = verify(experiment, _load(experiment), options.digests, options.batches)
        if verdict.difference is None:
            batches = ", ".join(map(str, verdict.batches))
            print(f"{experiment.name}: equal, {verdict.tensors} tensors after batches {batches}")
        else:
            differing += 1
            print(f"{experiment.name}: DIFFERS: {verdict.difference}")
    return 1 if differing else 0
