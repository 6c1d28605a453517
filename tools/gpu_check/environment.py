"""Card, driver, versions, and the ceilings of memory and matrix products."""

import platform
from collections.abc import Iterator

import torch
from common import Options, seconds_of
from record import Row, query_gpu

from steadyspike.bench.frameworks import versions
from steadyspike.variables import core_count

FIELDS = (
    "name",
    "driver_version",
    "memory.total",
    "clocks.max.sm",
    "clocks.sm",
    "clocks.mem",
    "power.limit",
    "vbios_version",
)


def measure(options: Options) -> Iterator[Row]:
    found = {
        **versions("pydantic", "torchvision", "cupy-cuda13x"),
        "python": platform.python_version(),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    yield Row("versions", _pairs(found), data=found)
    system = {"platform": platform.platform(), "cores": str(core_count())}
    yield Row("system", _pairs(system), data=system)
    if not options.rehearse:
        card = query_gpu(*FIELDS)
        properties = torch.cuda.get_device_properties(0)
        card |= {
            "multiprocessors": str(properties.multi_processor_count),
            "capability": f"{properties.major}.{properties.minor}",
            "L2": f"{properties.L2_cache_size >> 20} MiB",
        }
        yield Row("card", _pairs(card), data=card)
    yield from _ceilings(options)


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
