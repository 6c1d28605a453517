"""Has workers measure, one after the other, so that the machine's noise hits all alike."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from steadyspike.bench.contenders import ALL, Contender, why_not
from steadyspike.bench.plan import Entry
from steadyspike.bench.records import Measurement, Skipped, Waiting
from steadyspike.bench.setting import Setting
from steadyspike.bench.turns import BenchFailed, Worker, WorkerFailed

Start = Callable[[Contender, Setting], Worker]
WAITING = {"seconds": 6.0, "most": 200}
Show = Callable[[str], None]


class Measured:
    """All that came of a run so far."""

    def __init__(self) -> None:
        self.measurements: list[Measurement] = []
        self.skipped: list[Skipped] = []
        self.waiting: list[Waiting] = []
        self.unread: list[str] = []  # why there is no share of waiting, a line each
        self.facts: dict[str, Any] = {}
        self._variants: dict[tuple[str, str], str] = {}  # the fastest, by contender and precision

    def skip(self, contender: Contender, setting: Setting, reason: str) -> None:
        """Note that a contender is missing, in one line; our own must not be."""
        if contender.ours and "out of memory" not in reason:
            raise BenchFailed(f"{contender.label}: {reason}")
        self.skipped.append(
            Skipped(
                contender=contender.key,
                precision=setting.precision,
                steps=setting.steps,
                reason=reason,
            )
        )

    def compare(
        self,
        entries: Sequence[Entry],
        *,
        repeats: int,
        turn_seconds: float,
        show: Show,
        start: Start = Worker,
    ) -> None:
        """Measure the step of each in turns: A B C A B C, ``repeats`` times.

        All processes live at once, and only one is at work at any time. A contender that cannot
        be measured is noted and left out.
        """
        with ExitStack() as stack:
            running = []
            for contender, setting in entries:
                reason = why_not(contender, setting)
                if reason is not None:
                    self.skip(contender, setting, reason)
                else:
                    running.append(_Turns(stack.enter_context(start(contender, setting))))
            for place, turns in enumerate(running, start=1):
                show(f"warming up {place} of {len(running)}: {turns.contender.label}")
                self._try(turns, partial(self._prepare, turns, turn_seconds))
            for number in range(1, repeats + 1):
                show(f"{_told(entries)}: round {number} of {repeats}")
                for turns in running:
                    self._try(turns, turns.take)
        self.measurements += [turns.measurement() for turns in running if not turns.failed]

    def look(self, entries: Sequence[Entry], *, show: Show, start: Start = Worker) -> None:
        """Measure the peak memory of each, in a process of its own.

        The next process starts while one is at work: its memory is its own.
        """
        wanted = [entry for entry in entries if why_not(*entry) is None]  # the others were told
        with ExitStack() as stack:
            ahead = [stack.enter_context(start(*entry)) for entry in wanted[:1]]
            for place, (contender, setting) in enumerate(wanted):
                show(f"memory at T {setting.steps}: {contender.label}")
                worker = ahead.pop()
                if place + 1 < len(wanted):
                    ahead.append(stack.enter_context(start(*wanted[place + 1])))
                turns = _Turns(worker)
                self._try(turns, partial(self._prepare, turns, 0.0))
                worker.close()
                if not turns.failed:
                    self.measurements.append(turns.measurement())

    def keep(self, entries: Sequence[Entry], *, show: Show, start: Start = Worker) -> None:
        """Count what is kept for backward in each, a process for each contender."""
        for contender in dict.fromkeys(contender.key for contender, _ in entries):
            settings = [setting for one, setting in entries if one.key == contender]
            show(f"kept for backward: {ALL[contender].label}")
            with start(ALL[contender], settings[0]) as worker:
                worker.facts()
                for setting in settings:
                    told = worker.ask("kept", steps=setting.steps, chunk=setting.chunk)
                    self.measurements.append(
                        Measurement(contender=contender, setting=setting, **told)
                    )

    def wait(self, entry: Entry, dataset: str, *, show: Show, start: Start = Worker) -> None:
        """Measure how long training on a data set waits for it; a missing one is noted."""
        contender, setting = entry
        show(f"waiting for {dataset}")
        with start(contender, setting) as worker:
            try:
                worker.facts()
                found = worker.ask("waiting", dataset=dataset, **WAITING)
            except WorkerFailed as error:
                self.unread.append(f"{dataset}: {error}")
                return
        if found["share"] is None:
            self.unread.append(f"{dataset}: the training loop does not show where a step begins")
            return
        self.waiting.append(
            Waiting(dataset=dataset, precision=setting.precision, steps=setting.steps, **found)
        )

    def _prepare(self, turns: "_Turns", turn_seconds: float) -> None:
        key = (turns.contender.key, turns.setting.precision)
        self.facts = turns.worker.facts()
        turns.prepare(self._variants.get(key), turn_seconds)
        self._variants.setdefault(key, turns.prepared["variant"])

    def _try(self, turns: "_Turns", run: Callable[[], None]) -> None:
        if turns.failed:
            return
        try:
            run()
        except WorkerFailed as error:
            turns.failed = True
            self.skip(turns.contender, turns.setting, f"failed: {error}")


class _Turns:
    """One worker's turns."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.contender, self.setting = worker.contender, worker.setting
        self.failed = False
        self.prepared: dict[str, Any] = {}
        self.seconds: list[float] = []
        self.convolution_seconds: list[float] = []
        self.operations: int | None = None

    def prepare(self, variant: str | None, turn_seconds: float) -> None:
        self.prepared = self.worker.ask("prepare", variant=variant, turn_seconds=turn_seconds)

    def take(self) -> None:
        self.seconds.append(self.worker.ask("step")["seconds"])
        if self.contender.replayed and not self.setting.pinned:
            alone = self.worker.ask("convolutions")
            self.convolution_seconds.append(alone["seconds"])
            self.operations = alone["operations"]

    def measurement(self) -> Measurement:
        return Measurement(
            contender=self.contender.key,
            setting=self.setting,
            variant=self.prepared["variant"],
            seconds=self.seconds,
            steps_a_turn=self.prepared["count"],
            convolution_seconds=self.convolution_seconds,
            operations=self.operations,
            peak_bytes=self.prepared["peak_bytes"],
            kept_bytes=self.prepared["kept_bytes"],
        )


def _told(entries: Sequence[Entry]) -> str:
    setting = entries[0][1]
    return f"{setting.model}, T {setting.steps}, batch {setting.batch}, {setting.precision}"
