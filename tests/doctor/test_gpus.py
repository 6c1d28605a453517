"""`steadyspike doctor` on GPUs: the driver, those it finds or why none, and what torch sees."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from doctor.fake_nvml import GIB, NVMLError
from doctor.findings import told
from steadyspike.doctor import framework, gpu
from steadyspike.doctor.brief import brief
from steadyspike.doctor.gpu import Driver, Gpu, ask_driver, driver_findings, why_none

# The driver and its GPUs


def test_several_gpus(plug: Any) -> None:
    plug(("H100", 79 * GIB, 80 * GIB), ("H100", 1 * GIB, 80 * GIB), ("GB10", None, None))
    assert told(driver_findings(ask_driver())) == [
        ("driver", "ok", "610.43, for CUDA up to 13.2"),
        ("GPU 0", "ok", "H100, 79.0 GiB of 80.0 GiB free"),
        ("GPU 1", "ok", "H100, 1.0 GiB of 80.0 GiB free"),
        ("GPU 2", "ok", "GB10, its memory unknown"),
    ]
    assert brief()[0] == (
        "GPU: 2 × H100, 1 × GB10, 1.0 GiB free on each; driver 610.43, for CUDA up to 13.2"
    )


def test_a_lost_gpu_hides_no_other(plug: Any) -> None:
    plug(NVMLError("GPU is lost"), ("H100", 79 * GIB, 80 * GIB))
    assert told(driver_findings(ask_driver()))[1:] == [
        ("GPU 0", "note", "not usable (GPU is lost)"),
        ("GPU 1", "ok", "H100, 79.0 GiB of 80.0 GiB free"),
    ]


@pytest.mark.parametrize("error", [NVMLError("NVML Shared Library Not Found"), OSError("broken")])
def test_no_driver_is_normal(plug: Any, error: Exception) -> None:
    plug(init=error)
    (finding,) = driver_findings(ask_driver())
    assert (finding.state, finding.found) == ("note", "no GPU found: training runs on the CPU")
    assert brief()[0] == (
        "no GPU found: training runs on the CPU; to use one in the container: "
        "COMPOSE_FILE=compose.yaml:docker/gpu.yaml"
    )


def test_no_nvml_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert "nvidia-ml-py" in ask_driver().silent
    assert driver_findings(ask_driver())[0].found.startswith("no GPU found")


def test_a_driver_without_gpus(plug: Any) -> None:
    plug()
    assert "driver 610.43 is there, with no GPU" in driver_findings(ask_driver())[0].found


def test_why_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A driver of the host that a container was not given; a GPU without a driver."""
    silent = Driver(silent="Driver/library version mismatch")
    for name in ("PROC", "SYS", "ROOT"):
        monkeypatch.setattr(gpu, name, tmp_path / name)
    device = tmp_path / "SYS/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x8086\n")
    (device / "class").write_text("0x030000\n")
    assert why_none(silent)[0] == gpu.NONE

    (device / "vendor").write_text("0x10de\n")
    found, advice = why_none(silent)
    assert "this machine has an NVIDIA GPU, but no driver is loaded" in found
    assert advice == "install NVIDIA's driver on the host"

    version = tmp_path / "PROC/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  610.43  Tue\nGCC 12.2\n")
    found, advice = why_none(silent)
    assert "driver 610.43 is loaded, but does not answer: Driver/library version" in found
    assert "restart" in advice

    (tmp_path / "ROOT").mkdir()
    (tmp_path / "ROOT/.dockerenv").touch()
    found, advice = why_none(silent)
    assert "the host has driver 610.43; this container was given no GPU" in found
    assert advice == gpu.IN_CONTAINER

    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert why_none(silent)[1] == gpu.IN_POD


# torch


@pytest.mark.parametrize(
    ("cuda", "built_for", "visible", "warned", "why", "advice"),
    [
        ((13, 2), None, None, [], "built without CUDA", "make setup"),
        ((12, 8), "13.2", "", [], "driver 570 runs CUDA up to 12.8", "a driver for CUDA 13"),
        ((13, 0), "13.2", "", [], "CUDA_VISIBLE_DEVICES is ''", "0 to 1"),
        ((13, 0), "13.2", None, [], "no reason", "nvidia-smi"),
        ((13, 0), "13.2", "0", ["CUDA unknown error\nx"], "CUDA unknown error", "nvidia-smi"),
    ],
)
def test_why_torch_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
    cuda: tuple[int, int],
    built_for: str | None,
    visible: str | None,
    warned: list[str],
    why: str,
    advice: str,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    driver = Driver("570", cuda, (Gpu("H100", 1, 2), Gpu("H100", 1, 2)))
    found = framework.why_unseen(driver, built_for, warned)
    assert why in found[0]
    assert "\n" not in found[0]
    assert advice in found[1]


def test_torch_without_and_with_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver("610", (99, 0), (Gpu("H100", 1, 2),))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (finding,) = framework.torch_finding(Driver())
    assert (finding.state, finding.facts["gpus"]) == ("ok", 0)
    assert finding.found.startswith(torch.__version__)
    (finding,) = framework.torch_finding(driver)
    assert finding.state == "note"
    assert "it sees no GPU: " in finding.found

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "ones", lambda size, device: torch.full((size,), 1))
    (finding,) = framework.torch_finding(driver)
    assert (finding.state, finding.facts["gpus"]) == ("ok", 1)
    assert finding.found.endswith("computes on 1 of 1 GPUs")
    monkeypatch.setattr(torch, "ones", lambda size, device: torch.full((size,), 2))
    (finding,) = framework.torch_finding(driver)
    assert finding.state == "note"
    assert finding.found.endswith("GPU 0 does not compute: 8 ones add up to 16")
