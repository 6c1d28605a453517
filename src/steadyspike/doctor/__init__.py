"""`steadyspike doctor`: what training finds on this machine, and what to do about what it lacks.

Every question is asked by itself: whatever is strange about a machine, the others are answered.
"""

import os
from pathlib import Path

from steadyspike.doctor import gpu, machine, project
from steadyspike.doctor.finding import Finding, looked_at

__all__ = ["Finding", "doctor", "examine"]


def doctor(params: Path, *, json: bool = False, strict: bool = False) -> int:
    """Print every finding; 1 if ``strict`` and one would stop an experiment of ``params``, else 0.

    Call it before torch has loaded: it then looks at torch as training pins it.
    """
    from steadyspike.doctor.table import as_json, show

    findings = examine(params)
    if json:
        print(as_json(findings))
    else:
        show(findings)
    return int(strict and any(finding.state == "problem" for finding in findings))


def examine(params: Path) -> list[Finding]:
    """Every finding, in the order in which a person reads them."""
    shell = dict(os.environ)
    driver = gpu.ask_driver()
    # Before all that loads torch: it settles how torch loads.
    settings = looked_at("determinism", lambda: _determinism(shell))
    torch = looked_at("torch", lambda: _torch(driver))
    gpus = int(torch[0].facts.get("gpus", 0))
    return [
        *looked_at("steadyspike", project.version),
        *looked_at("driver", lambda: gpu.driver_findings(driver)),
        *torch,
        *looked_at("CPU", machine.cpu),
        *looked_at("C compiler", machine.compiler),
        *looked_at("CPU kernels", _kernels),
        *looked_at("memory", machine.memory),
        *looked_at("shared memory", lambda: _shared_memory(params)),
        *looked_at("disk", project.disks),
        *looked_at("experiments", lambda: _experiments(params, gpus)),
        *looked_at("data sets", lambda: _data_sets(params)),
        *looked_at("data.dvc", project.pulled),
        *looked_at("DVC", project.dvc),
        *settings,
    ]


# What loads torch or pydantic is imported when it is looked at: a broken one is then a finding.


def _determinism(shell: dict[str, str]) -> list[Finding]:
    from steadyspike.doctor.framework import determinism

    return determinism(shell)


def _torch(driver: gpu.Driver) -> list[Finding]:
    from steadyspike.doctor.framework import torch_finding

    return torch_finding(driver)


def _kernels() -> list[Finding]:
    from steadyspike.doctor.framework import kernels

    return kernels()


def _experiments(params: Path, gpus: int) -> list[Finding]:
    from steadyspike.doctor.experiments import experiments

    return experiments(params, gpus)


def _data_sets(params: Path) -> list[Finding]:
    from steadyspike.doctor.experiments import data_sets

    return data_sets(params)


def _shared_memory(params: Path) -> list[Finding]:
    try:
        from steadyspike.doctor.experiments import shared_memory_needed

        needed = shared_memory_needed(params)
    except Exception:  # told by those who look at params and torch
        needed = None
    return machine.shared_memory(needed)
