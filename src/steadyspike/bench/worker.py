"""A process of its own for each framework and setting, which measures on request.

Memory, threads and whatever a library loads or configures are then nobody else's, and a crash ends
one measurement alone.
"""

import gc
import importlib
import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from steadyspike import data
from steadyspike.bench.convolutions import convolutions_alone
from steadyspike.bench.frameworks import Framework
from steadyspike.bench.records import Setting
from steadyspike.bench.training_run import waiting_for
from steadyspike.bench.training_step import Variants, experiment_of
from steadyspike.errors import first_line
from steadyspike.pins import CPU_PINS, keep_freed_memory
from steadyspike.train.determinism import make_deterministic
from steadyspike.variables import KERNELS

TRIAL_BATCH = 4  # on a CPU the variants are compared at this fraction of the batch
MOST_STEPS = 1000  # in a turn
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Worker:
    """A process that measures one framework in one setting; a context manager that ends it.

    ``failed`` says in one line why there is no process or no answer any more, else it is None.
    """

    def __init__(self, framework: Framework, setting: Setting) -> None:
        self.framework, self.setting = framework, setting
        self.failed = framework.unavailable()
        self._process: SpawnProcess | None = None
        if self.failed:
            return
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, framework, setting), daemon=True
        )
        with _environment(framework, setting):
            self._process.start()
        theirs.close()  # so that a dead process is an end of file

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        """End the process, whatever it is doing."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Have `Session` call its method ``request``; an empty answer if this has ``failed``."""
        if self.failed or self._process is None:
            return {}
        try:
            self._connection.send((request, arguments))
            answer: dict[str, Any] | str = self._connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            status = self._process.exitcode or 0
            by = signal.Signals(-status).name if status < 0 else f"status {status}"
            answer = f"the process ended early: {by}"
        if isinstance(answer, str):
            self.failed = answer
            self._process.kill()  # it may hold memory that the others need
            return {}
        return answer


@contextmanager
def _environment(framework: Framework, setting: Setting) -> Iterator[None]:
    """Within the body, the environment that a worker inherits."""
    before = dict(os.environ)
    for name in CPU_PINS:  # the machine's own instruction set, as other libraries use it
        os.environ.pop(name, None)
    os.environ |= {
        "OMP_NUM_THREADS": str(setting.threads),
        "MKL_NUM_THREADS": str(setting.threads),
        KERNELS: "on" if framework.fused else "off",
        # Until `keep_freed_memory`, glibc returns freed tensors at once: otherwise peak memory
        # would depend on the gaps between blocks, which differ from run to run.
        "MALLOC_MMAP_THRESHOLD_": str(64 << 10),
        "MALLOC_TRIM_THRESHOLD_": str(64 << 10),
    }
    os.environ |= dict(variable.split("=", 1) for variable in framework.environment)
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")  # idle threads soon leave their core, see pins
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(connection: Connection, framework: Framework, setting: Setting) -> None:
    """The worker's process: answer requests until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    os.dup2(2, 1)  # standard output is for the tables
    session: Session | None = None
    while True:
        try:
            request, arguments = connection.recv()
        except EOFError:
            return
        try:
            session = session or Session(framework, setting)
            connection.send(getattr(session, request)(**arguments))
        except Exception as error:
            connection.send(first_line(error))


class Session:
    """What stays in a worker between requests; each public method is a request."""

    def __init__(self, framework: Framework, setting: Setting) -> None:
        self.framework, self.setting = framework, setting
        self.cuda = setting.device == "cuda"
        self.convolve: Callable[[], None] | None = None
        torch.set_num_threads(setting.threads)
        if framework.package is None:
            make_deterministic()  # as ours trains
        else:
            torch.backends.cudnn.benchmark = True  # others may search for their fastest kernels
        tf32 = setting.precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        module, _, function = framework.factory.partition(":")
        self.offer: Callable[[Setting], Variants] = getattr(
            importlib.import_module(module), function
        )

    def ready(self) -> dict[str, Any]:
        """Answers once everything is imported."""
        return {}

    def prepare(self, variant: str | None, turn_seconds: float) -> dict[str, Any]:
        """Build the network, choose the fastest variant unless one is named, measure memory.

        Args:
            variant: its name.
            turn_seconds: what a turn takes at least; 0 if only memory is asked for.

        Returns:
            fields of `records.Measurement`.
        """
        offered = self.offer(self.setting)
        if not self.cuda:  # what libraries load at first use is not the network's memory
            tiny = self.setting.but(batch=1, steps=1, chunk=1, widths=(8, "P", 8))
            next(iter(self.offer(tiny).values()))().run()
        before = self._memory()
        variant = variant or self._fastest(offered)
        gc.collect()  # networks that were only tried
        self.step = offered[variant]()
        eager = self.step.eager or self.step
        kept = eager.kept_bytes()
        self.step.optimizer.step()  # allocates momentum
        self._reset_peak()
        seconds = self._seconds(eager.run, 1)
        peak = self._memory(peak=True)
        if turn_seconds > 0:
            keep_freed_memory()  # as `steadyspike train` does
            seconds = min(seconds, self._seconds(self.step.run, 1))
        self.count = min(MOST_STEPS, max(1, math.ceil(turn_seconds / seconds)))
        return {
            "variant": variant,
            "kept_bytes": kept,
            "peak_bytes": None if before is None or peak is None else peak - before,
            "steps_per_turn": self.count,
        }

    def training_step(self) -> dict[str, Any]:
        """One turn: seconds of a whole step."""
        return {"seconds": self._turn(self.step.run)}

    def convolutions(self) -> dict[str, Any]:
        """One turn: seconds of a step's convolutions alone."""
        if self.convolve is None:
            ours = self.framework.package is None
            self.convolve = convolutions_alone(self.setting, self.step.layout, ours=ours)
            self.convolve()
        return {"seconds": self._turn(self.convolve)}

    def waiting(self, dataset: str) -> dict[str, Any]:
        """Fields of `records.Waiting`."""
        experiment = experiment_of(self.setting, dataset=dataset, cuda_graph=self.cuda)
        return waiting_for(data.load(dataset), experiment)

    def _turn(self, run: Callable[[], None]) -> float:
        if not self.cuda:
            return self._seconds(run, self.count)
        # The GPU's memory is the others' too: a turn begins with a warm-up and ends with a release.
        run()
        seconds = self._seconds(run, self.count)
        torch.cuda.empty_cache()
        return seconds

    def _seconds(self, run: Callable[[], None], count: int) -> float:
        """Of one run, the mean of ``count``."""
        self._synchronize()
        began = time.perf_counter()
        for _ in range(count):
            run()
        self._synchronize()
        return (time.perf_counter() - began) / count

    def _synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _fastest(self, offered: Variants) -> str:
        """The name of the fastest variant; one that raises here is passed over."""
        if len(offered) == 1:
            return next(iter(offered))
        if not self.cuda:
            smaller = max(1, self.setting.batch // TRIAL_BATCH)
            offered = self.offer(self.setting.but(batch=smaller))
        seconds: dict[str, float] = {}
        failure: Exception = RuntimeError("no variant")
        for name, make in offered.items():
            try:
                run = make().run
                run()
                seconds[name] = min(self._seconds(run, 1) for _ in range(2))
            except (ImportError, RuntimeError) as error:
                failure = error
        if not seconds:
            raise failure
        return min(seconds, key=lambda name: seconds[name])

    def _memory(self, *, peak: bool = False) -> int | None:
        """Bytes in use, or at most since `_reset_peak`: live tensors on a GPU, else resident.

        None where there is no /proc. `resource.getrusage` would not do: its peak is inherited from
        the process that started this one.
        """
        if self.cuda:
            return torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()
        key = "VmHWM:" if peak else "VmRSS:"
        try:
            lines = _STATUS.read_text().splitlines()
        except OSError:
            return None
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)

    def _reset_peak(self) -> None:
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        elif _CLEAR_REFS.exists():
            _CLEAR_REFS.write_text("5")
