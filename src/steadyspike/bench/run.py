"""`steadyspike bench`: from arguments to files."""

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from steadyspike import pins
from steadyspike.bench.frameworks import FRAMEWORKS, versions
from steadyspike.bench.records import (
    EXPERIMENTS_FILE,
    Bench,
    ExperimentsBench,
    Machine,
    Setting,
    bench_file,
    load,
    save,
)
from steadyspike.bench.tables import training_sentence
from steadyspike.bench.write import render, tables
from steadyspike.commit import describe
from steadyspike.console import notify
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.variables import core_count


def bench(args: argparse.Namespace) -> int:
    """Measure, write JSON, Markdown and figures to ``args.out``, print the tables.

    Returns:
        1 if one of our own training steps failed, else 0.

    Raises:
        UserError: an argument does not suit this machine, or a file cannot be read or written.
    """
    if args.experiments is not None:
        _print([_measure_experiments(args.experiments)])
        return 0
    if args.render:
        _print(render(args.out))
        return 0
    base = _base(args)
    before = load(bench_file(args.out, base.device))
    if args.train is not None:
        _train(args, base, before)
        return 0
    result = _measure(args, base)
    if before is not None:
        result = result.model_copy(update={"training": before.training})
    path = save(result, args.out)
    written = render(args.out)
    print(tables(result) + "\n")
    _print([path, *written])
    ours = [m for m in result.measurements if FRAMEWORKS[m.framework].package is None]
    return int(any(m.failed for m in ours))


def _base(args: argparse.Namespace) -> Setting:
    """What all settings share; the arguments are checked against this machine."""
    import torch

    from steadyspike import data
    from steadyspike.bench.measure import QUICK

    has_gpu = torch.cuda.is_available()
    device = args.device or ("cuda" if has_gpu else "cpu")
    if device == "cuda" and not has_gpu:
        raise UserError("--device: torch finds no GPU here, expected cpu")
    if "tf32" in args.precision and device == "cpu":
        raise UserError("--precision: tf32 needs --device cuda, expected float32 or bfloat16")
    if args.data not in (*data.NAMES, "none"):
        expected = ", ".join((*data.NAMES, "none"))
        raise UserError(f"--data: expected one of {expected}, got {args.data!r}")
    network = QUICK if args.quick else {"batch": 128 if device == "cuda" else 32}
    base = Setting(steps=args.steps, threads=core_count()).but(device=device, **network)
    return base.but(batch=args.batch) if args.batch else base


def _measure(args: argparse.Namespace, base: Setting) -> Bench:
    """Everything that the arguments ask for."""
    from steadyspike.bench import measure

    load_before = _load()
    benchmark = measure.Benchmark(_progress())
    groups = measure.comparisons(args, base)
    for group in groups:
        if args.quick:
            repeats, turn_seconds = measure.QUICK_REPEATS, measure.QUICK_TURN_SECONDS
        else:
            repeats, turn_seconds = measure.REPEATS, measure.TURN_SECONDS
        benchmark.compare(group, repeats=repeats, turn_seconds=turn_seconds)
    benchmark.measure_memory(measure.memory_curve(args, base))
    waiting = None
    if args.data != "none":
        waiting = benchmark.measure_waiting(args.data, groups[0][0][1])
    return Bench(
        **_where(base.device, load_before),
        measurements=benchmark.measurements,
        waiting=waiting,
    )


def _measure_experiments(params: Path) -> Path:
    """`--experiments`: written beside params.yaml, whose pipeline's report shows it."""
    from steadyspike.bench.experiments import measure, read

    load_before = _load()
    experiments = read(params)
    measured = measure(experiments, params, _progress())
    result = ExperimentsBench(**_where(experiments[0].device, load_before), experiments=measured)
    path = params.with_name(EXPERIMENTS_FILE)
    write_atomically(path, result.model_dump_json(indent=1) + "\n")
    return path


def _where(device: Literal["cpu", "cuda"], load_before: float | None) -> dict[str, Any]:
    """The fields of a record that say when, of what and on which machine it is."""
    import torch

    return {
        "date": _now(),
        "commit": describe(Path(__file__).parent, digits=7),
        "versions": versions(),
        "machine": Machine(
            device=device,
            processor=pins.cpu_name(),
            cores=core_count(),
            instructions=torch.backends.cpu.get_cpu_capability(),
            gpu=torch.cuda.get_device_name() if device == "cuda" else None,
            system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
            load=load_before,
        ),
    }


def _progress() -> Callable[[str], None]:
    """Shows lines on standard error, with the seconds since this call."""
    began = time.monotonic()
    return lambda text: notify(f"{time.monotonic() - began:4.0f} s  {text}")


def _load() -> float | None:
    """The mean number of running processes in the last minute; None where it is not known."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _train(args: argparse.Namespace, base: Setting, before: Bench | None) -> None:
    """`--train`: print the result, and add it to the device's measurements if there are any."""
    import torch

    from steadyspike import data
    from steadyspike.bench.training_run import train_for
    from steadyspike.train.determinism import make_deterministic

    pins.keep_freed_memory()
    make_deterministic()
    chunk = min(max(args.chunk), base.steps)  # the fastest
    setting = base.but(chunk=chunk, precision=args.precision[0])
    processor = torch.cuda.get_device_name() if base.device == "cuda" else pins.cpu_name()
    training = train_for(
        args.train, data.load("fashion_mnist"), setting, processor=processor, date=_now()
    )
    print(training_sentence(training))
    if before is not None:
        path = save(before.model_copy(update={"training": training}), args.out)
        _print([path, *render(args.out)])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _print(paths: Iterable[Path]) -> None:
    for path in paths:
        print(path)
