"""The machine that the tests of doctor see: a bare one, and whatever GPUs a test plugs in."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from doctor.fake_nvml import FakeNvml
from steadyspike.doctor import gpu, machine


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, on a machine without driver, container or limits."""
    monkeypatch.chdir(tmp_path)
    for module, name in ((gpu, "SYS"), (gpu, "ROOT"), (machine, "CGROUP")):
        monkeypatch.setattr(module, name, tmp_path / "none")
    monkeypatch.setattr(gpu, "PROC", tmp_path / "none")
    for variable in ("KUBERNETES_SERVICE_HOST", "CUDA_VISIBLE_DEVICES", "STEADYSPIKE_DATA"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a driver with these GPUs in; it must be closed again in the end."""
    plugged = []

    def put(*gpus: Any, init: Exception | None = None) -> None:
        plugged.append(FakeNvml(list(gpus), init))
        monkeypatch.setitem(sys.modules, "pynvml", plugged[-1])

    yield put
    assert all(nvml.open == 0 for nvml in plugged)
