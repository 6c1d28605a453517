"""`steadyspike doctor`: what training needs of this machine and this checkout, and what is missing.

Each check runs on its own: whatever fails in one of them, the others still report.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from steadyspike.doctor.checkout import data_here, environment, experiments, line_ends, versions
from steadyspike.doctor.finding import Finding
from steadyspike.doctor.machine import (
    cpu,
    disk,
    gpus,
    kernels,
    memory,
    query_driver,
    torch_and_gpus,
)
from steadyspike.errors import reason


def doctor(params: Path, *, as_json: bool = False, strict: bool = False) -> int:
    """Print every finding; 1 if ``strict`` and there is a problem, else 0.

    Call it before torch is imported, so that torch loads pinned as in training.
    """
    findings = examine(params)
    if as_json:
        content = [vars(finding) | {"state": finding.state} for finding in findings]
        print(json.dumps({"findings": content}, indent=2))
    else:
        width = max(len(finding.topic) for finding in findings)
        for finding in findings:
            print(f"{finding.state:8} {finding.topic:{width}}  {finding.found}")
            if finding.advice:
                print(f"{'':{width + 9}}  -> {finding.advice}")
    return int(strict and any(finding.problem for finding in findings))


def examine(params: Path) -> list[Finding]:
    """Every finding, in the order of the report."""
    driver = query_driver()
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
        "steadyspike": versions,
        "checkout": line_ends,
        "environment": environment,
        "GPU": lambda: gpus(driver),
        "torch": lambda: torch_and_gpus(driver),
        "CPU": cpu,
        "kernels": lambda: kernels(driver),
        "memory": memory,
        "disk": disk,
        "experiments": lambda: experiments(params),
    }
    findings: list[Finding] = []
    for topic, check in checks.items():
        try:
            findings += check()
        except Exception as error:
            advice = "see the other lines"
            findings.append(Finding(topic, f"could not be checked: {reason(error)}", advice))
    return findings


def brief() -> Iterator[str]:
    """Three lines for the start of a container's log: GPU, CPU, data. Loads no torch."""
    for topic, check in (("GPU", gpus), ("CPU", cpu), ("data", data_here)):
        try:
            for finding in check():
                yield "; ".join(filter(None, (f"{topic}: {finding.found}", finding.advice)))
        except Exception as error:
            yield f"{topic}: could not be checked: {reason(error)}"
