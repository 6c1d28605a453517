"""The library is compiled once, whole or not at all, and a missing compiler is reported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from steadyspike.kernels.cpu import build
from tiny import environment, needs_mounting

REFERENCE = "steadyspike.kernels.reference"
SCRIPT = """
import torch
from steadyspike import kernels
backend = kernels.backend(torch.zeros(1))
print(backend.__name__)
print(kernels.backend(torch.zeros(1)) is backend)
"""


def run(**variables: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process: "subprocess.Popen[str]") -> tuple[str, str]:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.splitlines()[1] == "True"
    return out.splitlines()[0], err


@pytest.mark.parametrize("count", [2])
@pytest.mark.slow
def test_two_at_once(count: int, tmp_path: Path) -> None:
    started = [run(XDG_CACHE_HOME=str(tmp_path)) for _ in range(count)]
    assert [ended(process) for process in started] == [("steadyspike.kernels.cpu", "")] * count
    made = sorted((tmp_path / "steadyspike").iterdir())
    assert len(made) == 2  # for float32 and bfloat16, nothing temporary
    stamps = [path.stat().st_mtime_ns for path in made]
    ended(run(XDG_CACHE_HOME=str(tmp_path)))
    assert [path.stat().st_mtime_ns for path in made] == stamps


@pytest.mark.slow
def test_no_place_to_keep_it(tmp_path: Path) -> None:
    """A home that cannot be written: a temporary folder serves."""
    (tmp_path / "file").touch()
    name, err = ended(run(XDG_CACHE_HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path)))
    assert (name, err) == ("steadyspike.kernels.cpu", "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_nowhere_to_compile(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither a home nor a temporary folder: reported like a missing compiler."""

    def none(*_: object, **__: object) -> None:
        raise FileNotFoundError("no usable temporary directory")

    def homeless(path: Path) -> Path:
        raise RuntimeError("no home directory")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert build.shared.__wrapped__("operations.c").moments  # a temporary folder serves
    monkeypatch.setattr(build.tempfile, "TemporaryDirectory", none)
    with pytest.raises(build.NoCompiler, match="temporary"):
        build.shared.__wrapped__("operations.c")


def test_clang_runs_on_one_thread(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its OpenMP calls are answered by no runtime that torch brings along."""
    seen = []

    def compile_(_: str, __: Path, flags: tuple[str, ...]) -> bytes:
        seen.append(flags)
        raise build.NoCompiler("enough")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(build, "_compile", compile_)
    for version in (b"Debian clang version 14.0.6", b"cc (Debian 12.2.0) 12.2.0"):
        monkeypatch.setattr(build, "_version", lambda _, version=version: version)
        with pytest.raises(build.NoCompiler, match="enough"):
            build.shared.__wrapped__("operations.c")
    assert ["-fopenmp" in flags for flags in seen] == [False, build._torch_openmp() is not None]


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.slow
def test_no_compiler(broken: bool, tmp_path: Path) -> None:
    if broken:
        compiler = tmp_path / "cc"
        compiler.write_text("#!/bin/sh\necho 'cannot find -lc' >&2\nexit 1\n")
        compiler.chmod(0o755)
    name, err = ended(run(PATH=str(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache")))
    assert name == REFERENCE
    assert len(err.splitlines()) == 1
    assert "install gcc" in err
    assert ("cannot find -lc" if broken else "cc, gcc, clang") in err
    assert not list(tmp_path.glob("cache/**/*.so"))


def test_switched_off() -> None:
    assert ended(run(STEADYSPIKE_KERNELS="off")) == (REFERENCE, "")
    assert "STEADYSPIKE_KERNELS" not in os.environ


def test_folders_that_hold_no_programs(tmp_path: Path) -> None:
    """The home and the temporary folder are mounted noexec: gcc is not what is missing."""
    needs_mounting()
    program = """
from steadyspike.kernels.cpu import build
try:
    build.library(False)
except build.NoCompiler as error:
    print(error, error.remedy, sep="; ")
"""
    mount = 'mount -t tmpfs -o noexec tmpfs "$1" && shift && exec "$@"'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount, "sh", tmp_path, sys.executable, "-c", program],
        env=environment(HOME=str(tmp_path), TMPDIR=str(tmp_path), XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert "operations.c can be compiled nowhere" in done.stdout
    assert "set XDG_CACHE_HOME to a folder" in done.stdout
