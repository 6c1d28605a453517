"""The few lines that a container's log begins with: quick, without torch."""

from collections import Counter
from collections.abc import Callable

from steadyspike.doctor import gpu, machine, project
from steadyspike.doctor.finding import first_line, size

MANIFEST = ".manifest.json"


def brief() -> list[str]:
    """At most three lines: the GPU or how to add one; the processor; the data."""
    return [_guarded(line) for line in (_gpu, _processor, _data)]


def _guarded(line: Callable[[], str]) -> str:
    try:
        return line()
    except Exception as error:
        return f"{line.__name__.strip('_')}: could not be found out: {first_line(error)}"


def _gpu() -> str:
    driver = gpu.ask_driver()
    if not driver.gpus:
        return "; ".join(gpu.why_none(driver))
    alike = Counter(one.name for one in driver.gpus)
    names = ", ".join(f"{count} × {name}" for name, count in alike.items())
    free = [one.free for one in driver.gpus if one.free is not None]
    memory = f", {size(min(free))} free on each" if free else ""
    return f"GPU: {names}{memory}; driver {driver.version}, for CUDA up to {driver.newest_cuda}"


def _processor() -> str:
    avx2 = "" if machine.has_avx2() else "; no AVX2: other bits than the committed ones"
    try:
        (shared,) = machine.shared_memory()
        memory = f"shared memory {shared.found}"
    except OSError as error:
        memory = f"shared memory unknown ({first_line(error)})"
    return f"CPU: {machine.cores_told()}, {machine.THREADS} threads a process; {memory}{avx2}"


def _data() -> str:
    told = [": ".join(filter(None, (f.found, f.advice))) for f in project.pulled()]
    root = project.fetched_root()
    fetched = sorted(path.name.removesuffix(MANIFEST) for path in root.glob(f"*{MANIFEST}"))
    told.append(f"{root}/ holds {', '.join(fetched) or 'no others (steadyspike fetch NAME)'}")
    return f"data: {'; '.join(told)}"
