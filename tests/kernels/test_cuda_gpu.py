"""The Triton kernels compiled: for several GPUs without having one, and run where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from no_waiting import no_waiting
from steadyspike.kernels import cuda
from steadyspike.kernels.stabilizer import Stabilizer

CAPABILITIES = (80, 90, 100, 120)
Compilers = dict[int, "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def compilers(tmp_path_factory: pytest.TempPathFactory) -> Compilers:
    """A process that compiles for each GPU; all run at once."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    env["TRITON_CACHE_DIR"] = str(tmp_path_factory.mktemp("triton"))
    script = Path(__file__).parent / "compile_kernels.py"
    return {
        capability: subprocess.Popen(
            [sys.executable, script, str(capability)],
            env=env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for capability in CAPABILITIES
    }


@pytest.mark.slow
@pytest.mark.parametrize("capability", CAPABILITIES)
def test_compiled_without_a_gpu(capability: int, compilers: Compilers) -> None:
    """Registers suffice, memory is read 16 bytes at a time, nothing is contracted."""
    out, err = compilers[capability].communicate(timeout=300)
    assert compilers[capability].returncode == 0, err
    lines = [line.split() for line in out.splitlines()]
    # Accesses to channels and to partial results, by a kernel's arguments
    few = {
        "moments": {3},
        "charge": {0, 2, 3, 5},
        "grad_sums": {4},
        "grad_input": {0, 5, 10, 13},
    }
    names = {name for name, *_ in lines}
    kernels = ("moments", "charge", "grad_sums", "combine_moments", "combine_charge", "fire")
    kernels += ("combine_sums", "grad_input", "pack", "unpack")
    kernels += ("pool", "unpool", "norm_forward", "norm_backward", "norm_fold")
    assert names == {f"_{kernel}_kernel" for kernel in kernels}
    of_channels = {f"_{kernel}_kernel": few.get(kernel, {0}) for kernel in kernels}
    for name, spilled, contracted, narrow in lines:
        assert (name, spilled, contracted) == (name, "0", "0")
        assert int(narrow) in of_channels[name]


@pytest.mark.gpu
def test_more_values_than_32_bits_count() -> None:
    x = torch.zeros(2**31 + 64, dtype=torch.bfloat16, device="cuda").view(1, -1, 64)
    x[0, -1] = 1
    mean, _ = cuda.moments(x)
    # Each program's mean is rounded to float32 before they are combined.
    assert mean.tolist() == [pytest.approx([1 / x.shape[1]] * 64, rel=1e-6)]
    packed = cuda.pack(x, 1)
    assert packed[0, -2:].sum() == 64
    del packed
    u = torch.empty(x.shape[1:], device="cuda")
    one = torch.ones((), device="cuda")
    cuda.charge(x[0], None, None, None, one, leak=0.5, zero_reset=False, out=u, statistics=False)
    x.zero_()
    cuda.fire(u, one, x[0])
    assert x.sum(dtype=torch.float32) == 64
    assert x[0, -1].sum() == 64


@pytest.mark.gpu
def test_nothing_waits_and_a_graph_replays_the_same() -> None:
    x = torch.randn(2, 16, 9, 9, 64, dtype=torch.bfloat16, device="cuda").movedim(-1, 2)
    u = torch.empty_like(x, dtype=torch.float16)
    vector, theta = torch.ones(2, 64, device="cuda"), torch.ones(2, device="cuda")
    results: list[Tensor] = []

    def run() -> None:
        mean, var = cuda.moments(x)
        first, stabilized = theta.new_empty(2), torch.empty_like(theta)
        stabilizers = [Stabilizer(1.0, first, k == 0, stabilized[k]) for k in range(2)]
        found = cuda.charge(
            x[0], vector[0], vector[0], None, theta[0], leak=0.5, zero_reset=False, out=u[0],
            statistics=True, stabilizer=stabilizers[0],
        )  # fmt: skip
        assert found is not None
        spikes = torch.empty_like(x[0])
        cuda.fire(u[0], theta[0], spikes)
        cuda.charge(
            x[1], vector[1], vector[1], u[0], theta[0], leak=0.5, zero_reset=False, out=u[1],
            stabilizer=stabilizers[1], spikes=torch.empty_like(x[1]), fire_at=1.0,
        )  # fmt: skip
        sums = cuda.grad_sums(x, u, theta, 4.0, x, mean, vector)
        gradient = cuda.grad_input(x, u, theta, 4.0, x, mean, vector, vector, *sums)
        back = cuda.unpack(cuda.pack(spikes, 1), 1, torch.bfloat16)
        results[:] = [mean, var, found, first, stabilized, spikes, *sums, gradient, back]

    run()  # compiles
    with no_waiting():
        run()
    expected = [result.clone() for result in results]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    for _ in range(3):
        for result in results:
            result.zero_()
        graph.replay()
        for result, right in zip(results, expected, strict=True):
            assert torch.equal(result, right)
