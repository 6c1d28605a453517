"""Workers started, asked in turns, and stopped."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

from steadyspike.bench.contenders import Contender
from steadyspike.bench.setting import Setting
from steadyspike.errors import UserError
from steadyspike.pins import CPU_PINS

_OWN = Path(__file__).parents[2]  # where the package is imported from


class WorkerFailed(Exception):
    """A measuring process ended early; the message is its last line on standard error."""


class BenchFailed(UserError):
    """Our own training could not be measured."""

    exit_status = 1


class Worker:
    """A process that measures one contender in one setting; a context manager that ends it."""

    def __init__(self, contender: Contender, setting: Setting) -> None:
        self.contender, self.setting = contender, setting
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", "steadyspike.bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_environment(contender, setting),
            text=True,
        )
        self._send(
            {
                "setting": setting.model_dump(mode="json"),
                "factory": contender.factory,
                "ours": contender.ours,
            }
        )

    def __enter__(self) -> "Worker":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, if it still runs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            try:
                pipe.close()
            except BrokenPipeError:
                continue  # a command that nobody read

    def facts(self) -> dict[str, Any]:
        """Wait until everything is imported."""
        return self._receive()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Have one command done; WorkerFailed if the process ends instead."""
        self._send({"do": command, **arguments})
        return self._receive()

    def _send(self, value: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(value) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerFailed(self._last_words()) from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerFailed(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        self._log.seek(0)
        lines = [line.strip() for line in self._log if line.strip()]
        return lines[-1] if lines else f"ended with status {status}"


def _environment(contender: Contender, setting: Setting) -> dict[str, str]:
    """Of a worker: the same threads for all, and no pins but where they are asked for."""
    own = {
        key: value
        for key, value in os.environ.items()
        if key not in CPU_PINS and key != "STEADYSPIKE_KERNELS"
    }
    own |= {"OMP_NUM_THREADS": str(setting.threads), "MKL_NUM_THREADS": str(setting.threads)}
    # As `pins.pin_cpu` has it: idle threads soon leave the cores to the worker whose turn it is.
    own.setdefault("GOMP_SPINCOUNT", "2000")
    own.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if own.pop("PYTHONDONTWRITEBYTECODE", None):  # as in a container: every process would compile
        own["PYTHONPYCACHEPREFIX"] = str(Path(tempfile.gettempdir()) / "steadyspike-pycache")
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_OWN), os.environ.get("PYTHONPATH")]))
    return own | contender.environment
