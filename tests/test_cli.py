import argparse
import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import steadyspike
from steadyspike import cli, commands, data
from steadyspike.cli import main, parser
from steadyspike.errors import UserError
from steadyspike.models import MODELS
from tiny import command, python


def subcommands() -> dict[str, argparse.ArgumentParser]:
    (action,) = (
        action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)
    )
    return dict(action.choices)


def test_help_and_usage_errors_load_no_torch() -> None:
    program = f"""
import contextlib, io, sys
from steadyspike.cli import main
for name in {list(subcommands())}:
    for arguments in ([name, "--help"], ["--help"], ["trian"], ["train"]):
        quiet = io.StringIO()
        with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            try:
                main(arguments)
            except SystemExit:
                pass
heavy = {{"torch", "numpy", "pydantic", "yaml", "rich", "matplotlib", "safetensors"}}
print(heavy & set(sys.modules))
"""
    assert python(program).stdout == "set()\n"


PUBLIC = ["LIF", "OSR", "LinearNorm", "PerStepBatchNorm", "sequence", "tet_loss"]


@pytest.mark.slow
def test_public_names_are_loaded_on_first_use() -> None:
    assert set(steadyspike.__all__) == {*PUBLIC, "__version__"}
    program = (
        "import sys, steadyspike; before = 'torch' in sys.modules; "
        f"print(before, all(callable(getattr(steadyspike, name)) for name in {PUBLIC}))"
    )
    assert python(program).stdout == "False True\n"


def test_other_attributes_are_missing_as_usual() -> None:
    with pytest.raises(AttributeError, match="module 'steadyspike' has no attribute 'sequense'"):
        steadyspike.sequense  # noqa: B018


def test_the_installed_command(tmp_path: Path) -> None:
    result = command(tmp_path, "train", "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("usage: steadyspike train ")
    script = Path(sys.executable).with_name("steadyspike")
    if script.exists():
        version = subprocess.run([script, "--version"], capture_output=True, text=True)
        assert version.stdout == f"steadyspike {steadyspike.__version__}\n"


COMMANDS = (
    *("doctor", "fetch", "train", "launch", "evaluate", "report"),
    *("predict", "export", "import-released", "verify", "bench"),
)


def test_every_argument_of_every_subcommand_is_explained() -> None:
    assert tuple(subcommands()) == COMMANDS
    for name, subcommand in subcommands().items():
        for action in subcommand._actions:
            assert action.help, f"{name}: {action.dest}"


def test_help_gives_each_command_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    _, _, shown = parser().format_help().partition("\ncommands:\n")
    lines = [line.split(maxsplit=1) for line in shown.splitlines()]
    assert [line[0] for line in lines[1 : len(COMMANDS) + 1]] == list(COMMANDS)
    assert all(len(line) == 2 for line in lines[1 : len(COMMANDS) + 1])


def test_help_names_every_data_set_and_network() -> None:
    assert set(cli.DATA_SETS.split(", ")) == set(data.NAMES)
    assert set(cli.NETWORKS.split(", ")) == set(MODELS)


@pytest.mark.parametrize(("text", "seconds"), [("50m", 3000), ("1h30m", 5400), ("0s", 0)])
def test_times(text: str, seconds: float) -> None:
    assert parser().parse_args(["train", "a", "--stop-after", text]).stop_after == seconds


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["trian", "a"],
        ["train"],
        ["train", "a", "b"],
        ["evaluate"],
        ["evaluate", "a", "--memory", "b", "c"],
        ["evaluate", "--memory", "a"],
        ["evaluate", "a", "--batch", "0"],
        ["evaluate", "a", "--batch", "x"],
        ["evaluate", "a", "--threshold", "none"],
        ["train", "a", "--stop-after", ""],
        ["train", "a", "--stop-after", "5"],
        ["train", "a", "--stop-after", "banana"],
        ["train", "a", "--checkpoint-every", "-5m"],
        ["train", "a", "--stop-after", "99999999999h"],
        ["report", "--nothing"],
    ],
    ids=" ".join,
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    # Unknown subcommands, and arguments that none of them knows, are the whole command's.
    of_all = ([], ["trian", "a"], ["train", "a", "b"], ["report", "--nothing"])
    where = "" if arguments in of_all else f"{arguments[0]}: "
    assert re.match(rf"steadyspike: {where}(?!steadyspike).+ \(see steadyspike.* --help\)$", line)


def end(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> tuple[Any, str]:
    """Exit status and standard error of a subcommand that does ``run``."""
    log = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(commands, "doctor", lambda _: run())
        patch.setattr(commands.doctor, "__name__", "doctor")
        patch.setattr(sys, "stderr", log)
        with pytest.raises(SystemExit) as exit_:
            main(["doctor"])
        return exit_.value.code, "" if log.closed else log.getvalue()


def raising(error: BaseException) -> Callable[[], Any]:
    def run() -> None:
        raise error

    return run


class Check(UserError):
    exit_status = 1


@pytest.mark.parametrize(
    ("run", "status", "err"),
    [
        (lambda: None, 0, ""),
        (lambda: 1, 1, ""),
        (lambda: 143, 143, ""),
        (raising(UserError("a: b")), 2, "steadyspike: a: b\n"),
        (raising(Check("c")), 1, "steadyspike: c\n"),
        (raising(UserError("a\nb\u2028c")), 2, "steadyspike: a b c\n"),
        (raising(KeyboardInterrupt()), 130, ""),
        (raising(BrokenPipeError()), 141, ""),
        (
            raising(PermissionError(errno.EACCES, os.strerror(errno.EACCES), "runs/a")),
            2,
            "steadyspike: runs/a: Permission denied\n",
        ),
        (raising(OSError(errno.EIO, "Input/output error")), 2, "[Errno 5] Input/output error\n"),
        (raising(MemoryError()), 2, "steadyspike: not enough memory: lower"),
        (raising(RuntimeError("CUDA out of memory. Tried")), 2, "steadyspike: not enough memory"),
        (raising(RuntimeError("x: can't allocate memory: you")), 2, "steadyspike: not enough mem"),
    ],
)
def test_exit_status_and_message(
    monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any], status: int, err: str
) -> None:
    got, message = end(monkeypatch, run)
    assert got == status
    assert err in message
    assert len(message.splitlines()) == bool(err)


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("x"), KeyError("y")])
def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    with pytest.raises(type(error)):
        end(monkeypatch, raising(error))
