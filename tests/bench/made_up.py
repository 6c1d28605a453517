"""Measurements in round numbers."""

from typing import Any

from steadyspike.bench.records import Bench, Measurement, Setting

BASE = Setting(batch=8)


def measurement(framework: str, seconds: list[float], **fields: Any) -> Measurement:
    """``steps`` and ``chunk`` are the setting's, all else the measurement's."""
    setting = BASE.but(**{key: fields.pop(key) for key in ("steps", "chunk") if key in fields})
    given = {"variant": "as it is", "setting": setting, **fields}
    return Measurement(framework=framework, seconds=seconds, **given)


def bench(**fields: Any) -> Bench:
    """Ours at K 1 and 4, plain torch, SpikingJelly and a missing peer; memory also at T 2."""
    steadyspike, peer = "steadyspike", "spikingjelly-bptt"
    rows = [
        measurement(
            steadyspike,
            [2.0, 1.0, 4.0],
            convolution_seconds=[1.0, 0.9, 2.0],
            peak_bytes=100_000_000,
            kept_bytes=11_000_000,
        ),
        measurement(steadyspike, [1.0, 1.0, 1.0], chunk=4, peak_bytes=300_000_000),
        measurement("steadyspike-plain", [4.0, 4.0, 4.0], peak_bytes=200_000_000),
        measurement(peer, [3.0, 2.0, 4.0], chunk=4, peak_bytes=400_000_000),
        measurement("snntorch", [], chunk=4, failed="snntorch is not installed"),
        measurement(steadyspike, [], steps=2, peak_bytes=90_000_000),
        measurement(peer, [], steps=2, chunk=2, peak_bytes=200_000_000),
        measurement(peer, [], steps=8, chunk=8, failed="RuntimeError: out of memory"),
    ]
    content = {
        "date": "2026-01-02T03:04:05+00:00",
        "commit": "0123456",
        "machine": {
            "device": "cpu",
            "processor": "A processor",
            "cores": 2,
            "instructions": "AVX2",
            "system": "Linux x86_64, Python 3.12.0",
            "load": 0.1,
        },
        "versions": {"steadyspike": "0.1.0", "torch": "2.15.0"},
        "measurements": [row.model_dump() for row in rows],
        "waiting": {
            "dataset": "embedded",
            "precision": "float32",
            "batch": 8,
            "batches": 9,
            "seconds": 2.5,
            "share": 0.0125,
        },
        **fields,
    }
    return Bench.model_validate(content)
