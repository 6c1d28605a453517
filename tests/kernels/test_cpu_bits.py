"""The C kernels give the same bits by any number of threads, compiler flags and vectors."""

import ctypes
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from kernels.cases import laid_out, using
from steadyspike.kernels import cpu
from steadyspike.kernels.cpu import build, operations


def everything(threads: int) -> list[Tensor]:
    """Every kernel on layers of many blocks, narrow and wide."""
    return [*each_kernel(threads, 40, 31, 17), *each_kernel(threads, 300, 7, 9)]


def each_kernel(threads: int, *sizes: int) -> list[Tensor]:
    with using(threads):
        torch.manual_seed(3)
        x, grad = (laid_out(torch.randn(2, 9, *sizes) + 1, "channels last") for _ in "xg")
        vectors = [torch.rand(2, sizes[0]) + 0.1 for _ in range(5)]
        mean, var = cpu.moments(x)
        u = torch.empty_like(x)
        sums = []
        state: tuple[Tensor | None, Tensor | None] = (None, None)
        for k in range(2):
            sums.append(
                cpu.charge(
                    x[k], mean[k], var[k], *state, leak=0.5, zero_reset=False, out=u[k],
                    statistics=True,
                )
            )  # fmt: skip
            state = u[k], torch.tensor(1.5)
        given_ = (grad, u, torch.tensor([1.0, 1.5]), 4.0, x, mean, var)
        return [mean, var, u, *sums, *cpu.grad_sums(*given_), cpu.grad_input(*given_, *vectors[:3])]


def test_the_same_bits_by_any_number_of_threads() -> None:
    one = everything(1)
    for threads in (2, 3, 5):
        for a, b in zip(one, everything(threads), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("flags", [("-O1",), ("-O3",), ("-O2", "-mavx512f"), ("-O3", "-mno-avx2")])
def test_the_same_bits_by_any_compilation(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another vector width, or none; run where this machine can."""
    expected = everything(1)
    if "-mavx512f" in flags and "avx512f" not in Path("/proc/cpuinfo").read_text():
        return
    path = tmp_path / "other.so"
    own = [flag for flag in build.FLAGS if not flag.startswith("-O")]
    subprocess.run(
        ["cc", *own, *flags, "-shared", str(build.SOURCE), "-o", str(path), "-lm"], check=True
    )
    operations._functions.cache_clear()
    monkeypatch.setattr(operations, "library", lambda _: ctypes.CDLL(str(path)))
    try:
        for a, b in zip(expected, everything(1), strict=True):
            assert torch.equal(a, b)
    finally:
        operations._functions.cache_clear()


def test_torchs_own_threads_do_the_work() -> None:
    """No second pool of threads that would compete with the first."""
    with using(2):
        torch.randn(1000, 1000).exp()  # torch's are awake
        before = len(list(Path("/proc/self/task").iterdir()))
        everything(2)
        assert len(list(Path("/proc/self/task").iterdir())) <= before
