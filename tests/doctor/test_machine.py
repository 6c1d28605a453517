"""`steadyspike doctor` on the machine: processor, compiler, kernels and memory."""

import os
import shutil
from pathlib import Path

import pytest

from doctor.fake_nvml import GIB
from doctor.findings import told
from steadyspike.doctor import experiments, framework, machine
from steadyspike.doctor.brief import brief
from steadyspike.doctor.finding import size
from steadyspike.kernels.cpu import build
from tiny import write_params


def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "PROC", tmp_path)


def test_a_processor_with_avx2_and_one_without(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cores = len(os.sched_getaffinity(0))
    cpuinfo(monkeypatch, tmp_path, "model name\t: A CPU\nflags\t: sse avx2 fma\n\nmodel name: B\n")
    (finding,) = machine.cpu()
    assert (finding.state, finding.facts["model"]) == ("ok", "A CPU")
    assert finding.facts["cores"] == cores
    cpuinfo(monkeypatch, tmp_path, "model name\t: Old\nflags\t: sse avx avx2_not\n")
    (finding,) = machine.cpu()
    assert finding.state == "note"
    assert "bits will differ" in finding.advice
    assert "no AVX2" in brief()[1]


@pytest.mark.parametrize(
    ("quota", "limit"), [("max 100000", None), ("50000 100000", 0.5), ("odd", None)]
)
def test_a_container_limits_the_processor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quota: str, limit: float | None
) -> None:
    (tmp_path / "cpu.max").write_text(quota)
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    assert machine.core_limit() == limit
    assert machine.cores_told().endswith(", limited to 0.5") == (limit is not None)


def test_a_container_limits_the_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text(f"{GIB // 2}\n")
    (finding,) = machine.memory()
    assert finding.facts["limit"] == GIB // 2
    assert finding.found.endswith("limit is 512 MiB")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory()[0].facts["limit"] is None


def test_the_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert machine.COMPILERS == build.COMPILERS
    gcc = tmp_path / "gcc"
    gcc.write_text("#!/bin/sh\necho gcc 99\n")
    gcc.chmod(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setattr(machine.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert told(machine.compiler()) == [("C compiler", "ok", f"{gcc}: gcc 99")]
    (tmp_path / "Python.h").unlink()
    (finding,) = machine.compiler()
    assert finding.state == "note"
    assert "Python.h, which Triton needs, is missing" in finding.found
    gcc.write_text("#!/bin/sh\nexit 4\n")
    assert machine.compiler()[0].found.startswith(f"{gcc} does not answer")
    gcc.unlink()
    assert told(machine.compiler()) == [("C compiler", "note", "none: no fused kernels")]


def test_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(bfloat16: bool) -> None:
        raise build.NoCompiler("cc: cannot find -lm")

    with monkeypatch.context() as patch:
        patch.setenv("STEADYSPIKE_KERNELS", "off")
        assert told(framework.kernels()) == [("CPU kernels", "note", "STEADYSPIKE_KERNELS=off")]
    monkeypatch.delenv("STEADYSPIKE_KERNELS", raising=False)
    monkeypatch.setattr(build, "library", lambda bfloat16: None)
    assert told(framework.kernels()) == [("CPU kernels", "ok", "compiled")]
    monkeypatch.setattr(build, "library", fails)
    (finding,) = framework.kernels()
    assert (finding.state, finding.found) == ("note", "cc: cannot find -lm")
    assert "rounds otherwise" in finding.advice


def test_shared_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "SHM", tmp_path)
    free = shutil.disk_usage(tmp_path).free
    assert machine.shared_memory(free // 2)[0].state == "ok"
    (small,) = machine.shared_memory(free * 2)
    assert small.state == "note"
    assert f"{size(free * 2)} wanted" in small.found
    assert "shm_size" in small.advice
    monkeypatch.setattr(machine, "SHM", tmp_path / "none")
    (none,) = machine.shared_memory(1)
    assert (none.state, none.found) == ("note", f"{tmp_path}/none is missing")
    assert "none is missing" in brief()[1]


def test_shared_memory_is_wanted_for_the_greatest_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEADYSPIKE_WORKERS", "3")
    assert experiments.shared_memory_needed(Path("params.yaml")) is None
    write_params(Path(), {"a": {"training.batch": 7}, "b": {"evaluation.batch": 33}})
    assert experiments.shared_memory_needed(Path("params.yaml")) == 3 * 2 * 33 * 3 * 224 * 224
