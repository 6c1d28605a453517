"""Card, driver, versions, and the ceilings of memory and matrix products."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator

import torch
from common import Options, seconds_of
from record import Row

SMI = (
    "name,driver_version,memory.total,clocks.max.sm,clocks.sm,clocks.mem,power.limit,vbios_version"
)
PACKAGES = ("torch", "triton", "numpy", "pydantic", "torchvision", "spikingjelly", "cupy-cuda13x")


def measure(options: Options) -> Iterator[Row]:
    versions = {name: found for name in PACKAGES if (found := _version(name))}
    versions |= {"python": platform.python_version(), "cuda": str(torch.version.cuda)}
    versions["cudnn"] = str(torch.backends.cudnn.version())
    yield Row("versions", _pairs(versions), data=versions)
    system = {"system": platform.platform(), "cores": str(len(os.sched_getaffinity(0)))}
    yield Row("system", _pairs(system), data=system)
    if not options.rehearse:
        card = _smi()
        properties = torch.cuda.get_device_properties(0)
        card |= {
            "multiprocessors": str(properties.multi_processor_count),
            "capability": f"{properties.major}.{properties.minor}",
            "L2": f"{properties.L2_cache_size >> 20} MiB",
        }
        yield Row("card", _pairs(card), data=card)
    yield from _ceilings(options)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _smi() -> dict[str, str]:
    command = ["nvidia-smi", f"--query-gpu={SMI}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    values = [value.strip() for value in done.stdout.splitlines()[0].split(",")]
    return dict(zip(SMI.split(","), values, strict=True))


def _ceilings(options: Options) -> Iterator[Row]:
    source = torch.empty(1 << (20 if options.rehearse else 30), dtype=torch.uint8)
    source = source.to(options.device)
    target = torch.empty_like(source)
    rate = 2 * source.numel() / seconds_of(lambda: target.copy_(source), options) / 1e12
    yield Row("copy", f"{rate:.2f} TB/s read and written", data={"terabytes_per_second": rate})
    side = 128 if options.rehearse else 8192
    found = {}
    for name, dtype, tf32 in (
        ("bfloat16", torch.bfloat16, False),
        ("tf32", torch.float32, True),
        ("float32", torch.float32, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        x = torch.randn(side, side, device=options.device, dtype=dtype)
        found[name] = 2 * side**3 / seconds_of(lambda x=x: x @ x, options) / 1e12  # type: ignore[misc]
    result = ", ".join(f"{name} {rate:.0f}" for name, rate in found.items())
    yield Row(f"matrix product {side}", f"{result} TFLOP/s", data=found)


def _pairs(values: dict[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
