"""What is measured, and in which order: frameworks take turns, so that noise hits all alike."""

import argparse
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from steadyspike.bench.frameworks import AS_PEERS, FUSED, PEERS, PLAIN, Framework
from steadyspike.bench.records import Measurement, Setting, Waiting
from steadyspike.bench.worker import Worker

REPEATS, TURN_SECONDS = 5, 0.5
QUICK_REPEATS, QUICK_TURN_SECONDS = 2, 0.01
QUICK_MEMORY_STEPS = (2,)
QUICK: dict[str, Any] = {"batch": 4, "image": (3, 8, 8), "widths": (8, "P", 8)}
MEMORY_STEPS = {"cpu": (2, 8), "cuda": (2, 8, 30)}  # T of the memory curve, besides those timed

Entry = tuple[Framework, Setting]


def comparisons(args: argparse.Namespace, base: Setting) -> list[list[Entry]]:
    """Groups of entries that take turns, one for each precision.

    Args:
        args: of the command.
        base: what all settings share: batch, T, network, device, threads.
    """
    groups = []
    for precision in args.precision:
        one = base.but(precision=precision)
        chunks = dict.fromkeys(min(chunk, base.steps) for chunk in args.chunk)
        group = [(FUSED, one.but(chunk=chunk)) for chunk in chunks]
        group += [(other, _at(other, one, args)) for other in (PLAIN, *_peers(args, base))]
        groups.append(group)
    return groups


def memory_curve(args: argparse.Namespace, base: Setting) -> list[Entry]:
    """Entries at further T, whose memory alone is measured, in the first precision."""
    first = base.but(precision=args.precision[0])
    return [
        (framework, _at(framework, first.but(steps=steps), args))
        for framework in (FUSED, PLAIN, *_peers(args, base))
        if not framework.cuda_only  # torch.compile takes a minute at each T
        and not framework.unavailable()  # which the comparison says
        for steps in (QUICK_MEMORY_STEPS if args.quick else MEMORY_STEPS[base.device])
        if steps != base.steps
    ]


def _peers(args: argparse.Namespace, base: Setting) -> list[Framework]:
    peers = (*AS_PEERS, *PEERS) if args.peers else ()
    return [peer for peer in peers if base.device == "cuda" or not peer.cuda_only]


def _at(framework: Framework, setting: Setting, args: argparse.Namespace) -> Setting:
    """The setting with the framework's K: T for BPTT, 1 for the peers' online rules and ours."""
    if framework.through_time:
        return setting.but(chunk=setting.steps)
    ours = framework.package is None and not framework.one_step
    return setting.but(chunk=min(args.chunk[0], setting.steps) if ours else 1)


class Benchmark:
    """Starts workers and collects what they measure; one that fails is a row that says why.

    Args:
        show: called with a line on what comes next.
        start: makes a worker.
    """

    def __init__(
        self,
        show: Callable[[str], None],
        start: Callable[[Framework, Setting], Worker] = Worker,
    ) -> None:
        self.show, self.start = show, start
        self.measurements: list[Measurement] = []
        self._variants: dict[tuple[str, str], str] = {}  # the fastest of a framework and precision

    def compare(self, entries: Sequence[Entry], *, repeats: int, turn_seconds: float) -> None:
        """Measure each step in turns, A B C A B C, ``repeats`` times.

        All workers live at once, and one of them is at work.
        """
        s = entries[0][1]
        group = f"T {s.steps}, batch {s.batch}, {s.precision}"
        with ExitStack() as stack:
            workers = [stack.enter_context(self.start(*entry)) for entry in entries]
            for worker in workers:
                worker.ask("ready")
            values = []
            for worker in workers:
                self.show(f"{group}: warming up {worker.framework.label}")
                values.append(self._prepared(worker, turn_seconds))
            for turn in range(1, repeats + 1):
                self.show(f"{group}: turn {turn} of {repeats}")
                for worker, value in zip(workers, values, strict=True):
                    _take_turn(worker, value)
        self.measurements += map(_measurement, workers, values)

    def measure_memory(self, entries: Sequence[Entry]) -> None:
        """Measure the memory of each step, one after the other."""
        for framework, setting in entries:
            self.show(f"memory at T {setting.steps}: {framework.label}")
            with self.start(framework, setting) as worker:
                self.measurements.append(_measurement(worker, self._prepared(worker, 0.0)))

    def measure_waiting(self, dataset: str, setting: Setting) -> Waiting:
        """Measure how long our training on a data set waits for it."""
        self.show(f"waiting for {dataset}")
        with self.start(FUSED, setting) as worker:
            found = {"batch": setting.batch, **worker.ask("waiting", dataset=dataset)}
        return Waiting(dataset=dataset, precision=setting.precision, failed=worker.failed, **found)

    def _prepared(self, worker: Worker, turn_seconds: float) -> dict[str, Any]:
        key = (worker.framework.key, worker.setting.precision)
        answer = worker.ask("prepare", variant=self._variants.get(key), turn_seconds=turn_seconds)
        if answer:
            self._variants.setdefault(key, answer["variant"])
        return {"seconds": [], "convolution_seconds": [], **answer}


def _take_turn(worker: Worker, value: dict[str, Any]) -> None:
    value["seconds"] += worker.ask("training_step").values()
    if worker.framework.convolutions:
        value["convolution_seconds"] += worker.ask("convolutions").values()


def _measurement(worker: Worker, value: dict[str, Any]) -> Measurement:
    key, setting, failed = worker.framework.key, worker.setting, worker.failed
    if failed:
        return Measurement(framework=key, setting=setting, failed=failed)
    return Measurement(framework=key, setting=setting, **value)
