"""The process that measures one framework in one setting, command by command.

``python -m steadyspike.bench.worker`` reads a JSON object a line from standard input and answers
with one a line on standard output. The first says what to measure; it is answered once everything
is imported and before anything is built.
"""

import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from steadyspike.bench.heap import give_freed_memory_back
from steadyspike.pins import keep_freed_memory, pin_cpu

if TYPE_CHECKING:
    from steadyspike.bench.setting import Setting
    from steadyspike.bench.work import Variants

TRIAL_BATCH = 4  # on a CPU variants are tried on this fraction of the batch
MOST_STEPS = 1000  # of a turn


def main() -> None:
    """Answer commands until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    job = json.loads(sys.stdin.readline())
    if job["setting"]["pinned"]:
        pin_cpu()
    give_freed_memory_back()
    from steadyspike.bench.setting import Setting

    session = _Session(Setting.model_validate(job["setting"]), job["factory"], job["ours"])
    _answer(answers, session.facts())
    for line in sys.stdin:
        command = json.loads(line)
        _answer(answers, getattr(session, command.pop("do"))(**command))


def _answer(answers: TextIO, value: dict[str, Any]) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


class _Session:
    """What stays from command to command. Every public method is a command."""

    def __init__(self, setting: "Setting", factory: str, ours: bool) -> None:
        import torch

        self.setting = setting
        # Every process has the same number, whatever the machine's default.
        torch.set_num_threads(2 if setting.pinned else setting.threads)
        _configure(setting, ours)
        module, _, function = factory.partition(":")
        self.offer: Callable[[Setting], Variants] = getattr(
            importlib.import_module(module), function
        )
        self.replayed: Callable[[], None] | None = None
        self.operations = 0

    def facts(self) -> dict[str, Any]:
        """Of this process: what the machine is to torch."""
        import torch

        cuda = self.setting.device == "cuda"
        return {
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "gpu": torch.cuda.get_device_name() if cuda else None,
            "gpu_memory": torch.cuda.get_device_properties(0).total_memory if cuda else None,
            "cuda": torch.version.cuda if cuda else None,
        }

    def prepare(self, variant: str | None, turn_seconds: float) -> dict[str, Any]:
        """Build the network, choose among the variants the fastest, warm up.

        The peak of the memory is that of a whole step of the chosen one, above what was there
        before the network.
        """
        from steadyspike.bench.resident import PeakMemory
        from steadyspike.bench.work import kept_bytes, train_step

        offered = self.offer(self.setting)
        _touch(self.setting, self.offer)  # the libraries' own memory is nobody's
        memory = PeakMemory(self.setting.device)
        if variant is None:
            variant = self._fastest(self.setting, offered)
        self.work = offered[variant]()
        self.eager = self.work.eager or self.work
        answer: dict[str, Any] = {"variant": variant, "kept_bytes": kept_bytes(self.eager)}
        self.work.optimizer.step()  # it keeps something for each weight, from its first call on
        memory.restart()
        seconds = self._timed(lambda: train_step(self.eager), 1)
        answer["peak_bytes"] = memory.peak()
        if turn_seconds > 0:  # else nobody asks for the time
            keep_freed_memory()  # as `steadyspike train` does
            seconds = min(seconds, self._timed(lambda: train_step(self.work), 1))
        self.count = min(MOST_STEPS, max(1, math.ceil(turn_seconds / seconds)))
        return {**answer, "count": self.count}

    def step(self) -> dict[str, Any]:
        """One turn: seconds of a whole training step."""
        from steadyspike.bench.work import train_step

        return {"seconds": self._turn(lambda: train_step(self.work))}

    def convolutions(self) -> dict[str, Any]:
        """One turn: seconds of the convolutions and matrix products of that step alone."""
        from steadyspike.bench.operators import recorded, replay
        from steadyspike.bench.work import train_step

        if self.replayed is None:
            record = recorded(lambda: train_step(self.eager))
            self.operations = record.operations
            self.replayed = replay(record.calls)
            self.replayed()
        return {"seconds": self._turn(self.replayed), "operations": self.operations}

    def kept(self, **changes: Any) -> dict[str, Any]:
        """The most bytes that autograd keeps, of the setting so changed."""
        from steadyspike.bench.work import kept_bytes

        offered = self.offer(self.setting.but(**changes))
        variant = next(iter(offered))
        return {"variant": variant, "kept_bytes": kept_bytes(offered[variant]())}

    def waiting(self, dataset: str, seconds: float, most: int) -> dict[str, Any]:
        """The share of the time that training on a data set waits for its batches."""
        from steadyspike.bench.waiting import waiting

        return waiting(self.setting, dataset, seconds, most)

    def _turn(self, run: Callable[[], None]) -> float:
        import torch

        if self.setting.device == "cpu":
            return self._timed(run, self.count)
        # The others' turns need the memory too: each gives it back and warms up again.
        run()
        seconds = self._timed(run, self.count)
        torch.cuda.empty_cache()
        return seconds

    def _timed(self, run: Callable[[], None], count: int) -> float:
        """Seconds of one run, of ``count`` on end."""
        import torch

        cuda = self.setting.device == "cuda"
        if cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(count):
            run()
        if cuda:
            torch.cuda.synchronize()
        return (time.perf_counter() - began) / count

    def _fastest(self, setting: "Setting", offered: "Variants") -> str:
        from steadyspike.bench.work import train_step

        if len(offered) == 1:
            return next(iter(offered))
        if setting.device == "cpu":
            setting = setting.but(batch=max(1, setting.batch // TRIAL_BATCH))
            offered = self.offer(setting)
        seconds: dict[str, float] = {}
        failure: Exception = RuntimeError("nothing to run")
        for name, make in offered.items():
            try:
                run = partial(train_step, make())
                run()
                seconds[name] = min(self._timed(run, 1) for _ in range(2))
            except (ImportError, RuntimeError) as error:
                failure = error  # a way that this machine has not
        if not seconds:
            raise failure
        return min(seconds, key=lambda name: seconds[name])


def _configure(setting: "Setting", ours: bool) -> None:
    """Ours runs deterministic, as it trains; the others may search for their fastest kernels."""
    import torch

    if ours:
        from steadyspike.train.determinism import make_deterministic

        make_deterministic()
    else:
        torch.backends.cudnn.benchmark = True
    tf32 = setting.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.allow_tf32 = tf32


def _touch(setting: "Setting", offer: "Callable[[Setting], Variants]") -> None:
    """A step of a tiny network, so that the libraries have loaded what they load at first use."""
    from steadyspike.bench.work import train_step

    if setting.device == "cuda":
        return  # where the network's own tensors alone are counted
    widths = (8, "P", 8) if setting.model == "vggsnn" else None
    tiny = offer(setting.but(batch=1, steps=1, chunk=1, widths=widths))
    train_step(next(iter(tiny.values()))())


if __name__ == "__main__":
    main()
