"""torch: its CUDA against the driver's, and the settings that make it deterministic."""

import os
import sys
import warnings
from collections.abc import Mapping
from typing import Any

from steadyspike.doctor.finding import Finding, first_line
from steadyspike.doctor.gpu import Driver
from steadyspike.pins import CPU_PINS, pin_cpu


def torch_finding(driver: Driver) -> list[Finding]:
    """torch's version and CUDA, and whether it computes on each GPU; if not, why."""
    try:
        import torch
    except Exception as error:
        found = f"cannot be imported: {first_line(error)}"
        return [Finding("torch", "problem", found, "make setup", {"version": None, "gpus": 0})]
    built_for = torch.version.cuda
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    facts: dict[str, Any] = {"version": torch.__version__, "cuda": built_for, "gpus": seen}
    found = f"{torch.__version__}, built for {f'CUDA {built_for}' if built_for else 'CPUs only'}"
    if seen:
        failing = {n: reason for n in range(seen) if (reason := _does_not_compute(n))}
        if failing:
            found += "".join(f"; GPU {n} does not compute: {why}" for n, why in failing.items())
            advice = "end what else uses it (nvidia-smi), or hide it by CUDA_VISIBLE_DEVICES"
            return [Finding("torch", "note", found, advice, facts)]
        found += f"; computes on {seen} of {len(driver.gpus) or seen} GPUs"
        return [Finding("torch", "ok", found, facts=facts)]
    if not driver.gpus:
        return [Finding("torch", "ok", found, facts=facts)]
    why, advice = why_unseen(driver, built_for, [str(warning.message) for warning in told])
    return [Finding("torch", "note", f"{found}; it sees no GPU: {why}", advice, facts)]


def why_unseen(driver: Driver, built_for: str | None, warned: list[str]) -> tuple[str, str]:
    """Why torch sees none of the driver's GPUs, and what to do."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if built_for is None:
        return "this torch was built without CUDA", "make setup installs one built with CUDA"
    if driver.cuda and driver.cuda[0] < int(built_for.split(".")[0]):
        return (
            f"driver {driver.version} runs CUDA up to {driver.newest_cuda}",
            f"install a driver for CUDA {built_for.split('.')[0]}, or a torch for CUDA "
            f"{driver.cuda[0]}",
        )
    if visible is not None and not warned:  # it hides them without a word
        return (
            f"CUDA_VISIBLE_DEVICES is {visible!r}",
            f"unset it, or name some of 0 to {len(driver.gpus) - 1}",
        )
    return (warned or ["torch gives no reason"])[0].splitlines()[0], "nvidia-smi may tell more"


def _does_not_compute(index: int) -> str:
    """Empty where a sum on that GPU comes out right; else the reason."""
    import torch

    try:
        total = int(torch.ones(8, device=f"cuda:{index}").sum())
        return "" if total == 8 else f"8 ones add up to {total}"
    except Exception as error:
        return first_line(error)


def kernels() -> list[Finding]:
    """Whether the CPU kernels compile here, as training does when it first needs them."""
    from steadyspike.kernels import SWITCH
    from steadyspike.kernels.cpu import build

    advice = "trains all the same, slower, and rounds otherwise than the committed runs"
    if os.environ.get(SWITCH) == "off":
        advice += f"; unset {SWITCH} for them"
        return [Finding("CPU kernels", "note", f"{SWITCH}=off", advice, {"compiled": False})]
    try:
        for bfloat16 in (False, True):
            build.library(bfloat16)
    except build.NoCompiler as error:
        return [Finding("CPU kernels", "note", first_line(error), advice, {"compiled": False})]
    return [Finding("CPU kernels", "ok", "compiled", facts={"compiled": True})]


def determinism(shell: Mapping[str, str]) -> list[Finding]:
    """The settings that training makes, as they have come out; ``shell`` is what was set before."""
    if "torch" not in sys.modules:
        pin_cpu()
    import torch

    from steadyspike.train.determinism import make_deterministic

    make_deterministic()
    facts = {
        "algorithms": torch.are_deterministic_algorithms_enabled(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "CUBLAS_WORKSPACE_CONFIG": os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
        **{name: os.environ.get(name) for name in CPU_PINS},
    }
    found = (
        f"deterministic algorithms; {facts['threads']} threads, {facts['cpu_capability']}; "
        f"CUBLAS_WORKSPACE_CONFIG={facts['CUBLAS_WORKSPACE_CONFIG']}"
    )
    overridden = [
        f"{name}={shell[name]}"
        for name in CPU_PINS
        if shell.get(name, CPU_PINS[name]) != CPU_PINS[name]
    ]
    if facts["CUBLAS_WORKSPACE_CONFIG"] not in (":4096:8", ":16:8"):
        advice = "unset CUBLAS_WORKSPACE_CONFIG: cuBLAS is not deterministic with this value"
        return [Finding("determinism", "note", found, advice, facts)]
    if overridden:
        advice = f"nothing: training sets its own instead of this shell's {', '.join(overridden)}"
        return [Finding("determinism", "note", found, advice, facts)]
    return [Finding("determinism", "ok", found, facts=facts)]
