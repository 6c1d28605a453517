"""Compiles the C sources with the machine's compiler, once; keeps the libraries in a cache."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import torch

from steadyspike.pins import cpu_flags

SOURCE = Path(__file__).with_name("operations.c")
COMPILERS = ("cc", "gcc", "clang")
# No contraction and no reassociation: any compiler and any vector width give the same bits.
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC")


class NoCompiler(Exception):
    """The C sources cannot be compiled here; the message says why, ``remedy`` what to do."""

    def __init__(
        self, message: str, remedy: str = "on Debian and Ubuntu install gcc and libc6-dev"
    ) -> None:
        super().__init__(message)
        self.remedy = remedy


def library(bfloat16: bool) -> ctypes.CDLL:
    """operations.c, the kernels for float32 currents, or for those in bfloat16.

    Raises:
        NoCompiler: none is installed, or it fails.
    """
    # The pins ask for AVX2; an x86-64 machine without it trains all the same.
    flags = ["-mavx2"] if "avx2" in cpu_flags() else []
    if bfloat16:
        flags.append("-DBFLOAT16")
    return shared(SOURCE.name, *flags)


@cache
def shared(source: str, *more: str) -> ctypes.CDLL:
    """A source of this folder, compiled with ``more`` flags than `FLAGS`; raises NoCompiler."""
    # torch's own threads are used: two thread pools would compete for the cores.
    runtime = _torch_openmp()
    if runtime is not None:
        ctypes.CDLL(str(runtime), mode=ctypes.RTLD_GLOBAL)
    compiler = next((found for found in map(shutil.which, COMPILERS) if found), None)
    if compiler is None:
        raise NoCompiler(f"none of {', '.join(COMPILERS)} is installed")
    path = SOURCE.with_name(source)
    # clang calls another OpenMP runtime than the one torch brings: then one thread runs.
    threads = runtime is not None and b"clang" not in _version(compiler)
    flags = (*FLAGS, *more, *(("-fopenmp",) if threads else ()))
    texts = [each.read_bytes() for each in (path, *sorted(path.parent.glob("*.h")))]
    key = hashlib.sha256(
        b"\0".join([*texts, _version(compiler), *map(str.encode, flags)])
    ).hexdigest()
    name = f"kernels-{key[:16]}.so"
    content = None
    try:
        kept = _cache_folder() / name
        content = None if kept.exists() else _compile(compiler, path, flags)
        return _load(kept, content)
    except (OSError, RuntimeError):  # no home, a read-only one, or one mounted noexec
        pass
    try:
        content = content or _compile(compiler, path, flags)
        # Once loaded, the file may go.
        with tempfile.TemporaryDirectory(prefix="steadyspike-") as folder:
            return _load(Path(folder, name), content)
    except OSError as error:
        raise NoCompiler(
            f"{source} can be compiled nowhere: {error}",
            "set XDG_CACHE_HOME to a folder that you may write and that is not mounted noexec",
        ) from error


def _cache_folder() -> Path:
    """The user's cache folder; RuntimeError without a home."""
    own = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(own, "steadyspike")


def _load(path: Path, content: bytes | None) -> ctypes.CDLL:
    """The library at ``path``, written there first if there is content."""
    if content is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several processes may do this at once: each writes a file of its own, then renames it.
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    return ctypes.CDLL(str(path))


def _compile(compiler: str, source: Path, flags: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        unlinked, linked = Path(folder, "kernels.o"), Path(folder, "kernels.so")
        # Linked without -fopenmp, so that the runtime already loaded serves its calls.
        for command in (
            [compiler, *flags, "-c", str(source), "-o", str(unlinked)],
            [compiler, "-shared", str(unlinked), "-o", str(linked), "-lm"],
        ):
            try:
                done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            except (OSError, subprocess.TimeoutExpired) as error:
                raise NoCompiler(f"{compiler}: {error}") from error
            if done.returncode:
                said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
                raise NoCompiler(f"{compiler}: {said[0]}")
        return linked.read_bytes()


@cache
def _version(compiler: str) -> bytes:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoCompiler(f"{compiler}: {error}") from error


def _torch_openmp() -> Path | None:
    """The OpenMP library in torch's wheel, if it is GNU's, which gcc's calls need."""
    folder = Path(torch.__file__).parent
    if sys.platform != "linux":
        return None
    places = (folder / "lib", folder.parent / "torch.libs")
    return next((path for place in places for path in sorted(place.glob("libgomp*.so*"))), None)
