"""`steadyspike bench`: from its options to files and tables."""

import argparse
from pathlib import Path

from steadyspike.bench import machine
from steadyspike.bench.contenders import FUSED, versions
from steadyspike.bench.measure import Measured
from steadyspike.bench.options import Options, options_of, seconds
from steadyspike.bench.plan import comparisons, kept_points, memory_curve
from steadyspike.bench.progress import progress
from steadyspike.bench.records import Bench, file_of, read_bench
from steadyspike.bench.write import render, save, show


def bench(given: argparse.Namespace) -> None:
    """Measure what the options ask for, write it and print it.

    Raises:
        UserError: an option is wrong, or the files cannot be written.
    """
    if given.render:
        _print(render(given.out, given.readme))
        return
    if given.train is not None:
        minutes = seconds("train", given.train)
        options = _options(given)
        from steadyspike.bench.long_run import train_for

        train_for(minutes, options)
        return
    options = _options(given)
    measured = measure(options)
    save(measured, options.out)
    written = render(options.out, options.readme)
    show(measured)
    _print([file_of(options.out, options.device), *written])


def _options(given: argparse.Namespace) -> Options:
    import torch

    return options_of(given, gpu=torch.cuda.is_available(), cores=machine.cores())


def measure(options: Options) -> Bench:
    """The whole run."""
    load = machine.load()
    measured = Measured()
    with progress() as shown:
        for group in comparisons(options):
            measured.compare(
                group, repeats=options.repeats, turn_seconds=options.turn_seconds, show=shown
            )
        measured.look(memory_curve(options), show=shown)
        measured.keep(kept_points(options), show=shown)
        if options.data is not None:
            first = comparisons(options)[0][0][1]
            measured.wait((FUSED, first), options.data, show=shown)
    commit, changed = machine.commit()
    before = read_bench(file_of(options.out, options.device))
    return Bench(
        date=machine.now(),
        commit=commit,
        changed=changed,
        machine=machine.machine(options.device, measured.facts, load),
        versions=versions(),
        measurements=measured.measurements,
        skipped=measured.skipped,
        waiting=measured.waiting,
        unread=measured.unread,
        training=before.training if before else None,
    )


def _print(paths: list[Path]) -> None:
    for path in paths:
        print(path)
