"""Measurements made up for tests, in round numbers."""

from typing import Any

from steadyspike.bench.records import Bench, Machine, Measurement, Skipped, Waiting
from steadyspike.bench.setting import Setting


def measurement(contender: str, seconds: list[float], **more: Any) -> Measurement:
    """Of batch 8 unless ``setting`` says otherwise."""
    setting = more.pop("setting", None) or Setting(batch=8, threads=2)
    return Measurement(
        contender=contender, setting=setting, variant="as it is", seconds=seconds, **more
    )


def bench(**more: Any) -> Bench:
    """Ours at K 1 and 4, plain torch and a peer, at float32; memory at T 2 too."""
    base = Setting(batch=8)
    return Bench.model_validate(
        {
            "date": "2026-01-02T03:04:05+00:00",
            "commit": "0123456789abcdef",
            "changed": False,
            "machine": Machine(
                device="cpu",
                processor="A processor",
                cores=2,
                memory_bytes=8 << 30,
                instructions="AVX2",
                gpu=None,
                gpu_memory_bytes=None,
                cuda=None,
                system="Linux x86_64, Python 3.12.0",
                load=0.1,
            ),
            "versions": {"steadyspike": "0.1.0", "torch": "2.15.0"},
            "measurements": [
                measurement(
                    "steadyspike",
                    [2.0, 1.0, 4.0],
                    convolution_seconds=[1.0, 0.9, 2.0],
                    peak_bytes=100_000_000,
                    kept_bytes=11_000_000,
                ),
                measurement(
                    "steadyspike",
                    [1.0, 1.0, 1.0],
                    setting=base.but(chunk=4),
                    peak_bytes=300_000_000,
                ),
                measurement(
                    "steadyspike-plain",
                    [4.0, 4.0, 4.0],
                    peak_bytes=200_000_000,
                    kept_bytes=20_000_000,
                ),
                measurement(
                    "spikingjelly-bptt",
                    [3.0, 2.0, 4.0],
                    setting=base.but(chunk=4),
                    peak_bytes=400_000_000,
                ),
                measurement("steadyspike", [], setting=base.but(steps=2), peak_bytes=90_000_000),
                measurement(
                    "spikingjelly-bptt",
                    [],
                    setting=base.but(steps=2, chunk=2),
                    peak_bytes=200_000_000,
                ),
                measurement("steadyspike", [], setting=base.but(steps=2, batch=2), kept_bytes=1000),
                measurement(
                    "steadyspike", [], setting=base.but(steps=30, batch=2), kept_bytes=1000
                ),
            ],
            "skipped": [
                Skipped(contender="snntorch", precision="float32", steps=4, reason="not installed")
            ],
            "waiting": [
                Waiting(
                    dataset="embedded",
                    precision="float32",
                    steps=4,
                    batch=8,
                    batches=9,
                    share=0.0125,
                    seconds=2.5,
                )
            ],
            "unread": [],
            **more,
        }
    )
