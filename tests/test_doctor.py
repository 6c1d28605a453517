"""`steadyspike doctor` on machines and checkouts where something is missing, and on a good one."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steadyspike.doctor import brief, checkout, machine
from steadyspike.doctor.finding import Finding
from steadyspike.doctor.machine import GIB, Driver, gpus, why_torch_sees_none
from steadyspike.kernels.cpu import build
from tiny import command, in_process, refused, write_data, write_params

PARAMS = Path("params.yaml")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty folder on a machine without driver, container or limits."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "proc").mkdir()
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "MEMORY_LIMIT", tmp_path / "memory.max")
    monkeypatch.setattr(machine, "CONTAINER_MARKS", (tmp_path / ".dockerenv",))
    monkeypatch.setattr(machine, "OWN_IMAGE", tmp_path / "own")
    for variable in ("KUBERNETES_SERVICE_HOST", "CUDA_VISIBLE_DEVICES", "STEADYSPIKE_DATA"):
        monkeypatch.delenv(variable, raising=False)


def lines(findings: Any) -> dict[str, tuple[str, str]]:
    return {finding.topic: (finding.state, finding.found) for finding in findings}


# GPUs


class NVMLError(Exception):
    pass


def nvml(monkeypatch: pytest.MonkeyPatch, *cards: Any, init: Exception | None = None) -> None:
    """Make pynvml that of a machine with these GPUs: (name, free, total) in GiB."""

    def start() -> None:
        if init:
            raise init

    def usage(card: Any) -> Any:
        if card[1] is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(free=card[1] * GIB, total=card[2] * GIB)

    fake = SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=start,
        nvmlSystemGetDriverVersion=lambda: "610.43",
        nvmlSystemGetCudaDriverVersion_v2=lambda: 13020,
        nvmlDeviceGetCount=lambda: len(cards),
        nvmlDeviceGetHandleByIndex=lambda index: cards[index],
        nvmlDeviceGetName=lambda card: card[0],
        nvmlDeviceGetMemoryInfo=usage,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)


def test_gpus_and_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml(monkeypatch, ("H100", 79, 80), ("GB10", None, None))
    found = "H100 (79.0 GiB of 80.0 GiB free), GB10; driver 610.43, for CUDA up to 13.2"
    assert list(gpus()) == [Finding("GPU", found)]
    assert next(brief()) == f"GPU: {found}"


@pytest.mark.parametrize("error", [NVMLError("Shared Library Not Found"), OSError("broken"), None])
def test_a_machine_without_gpu(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    nvml(monkeypatch, init=error)
    expected = "none found, training runs on the CPU", "to use one by NVIDIA, install its driver"
    assert list(gpus()) == [Finding("GPU", *expected)]
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert list(gpus()) == [Finding("GPU", *expected)]


@pytest.mark.parametrize(
    ("marks", "found", "advice"),
    [
        (["proc/driver"], "the driver is loaded but shows none: version mismatch", "restart"),
        (["proc/driver", ".dockerenv", "own"], "container was given no GPU", "docker/gpu.yaml"),
        (["proc/driver", "pod"], "this container was given no GPU", "docker/kubernetes.yaml"),
        ([".dockerenv"], "runs on the CPU", "docker run --gpus all"),
        ([".dockerenv", "own"], "runs on the CPU", "docker/gpu.yaml"),
    ],
)
def test_the_remedy_for_a_missing_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, marks: list[str], found: str, advice: str
) -> None:
    if "proc/driver" in marks:
        (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
        (tmp_path / "proc/driver/nvidia/version").touch()
    for name in {".dockerenv", "own"} & set(marks):
        (tmp_path / name).touch()
    if "pod" in marks:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    (finding,) = gpus(Driver(error="version mismatch"))
    assert found in finding.found
    assert advice in finding.advice


@pytest.mark.parametrize(
    ("cuda", "built_for", "visible", "warned", "why", "advice"),
    [
        (13020, None, None, [], "built without CUDA", "make setup"),
        (12080, "13.2", "", [], "driver 570, for CUDA up to 12.8", "a driver for CUDA 13"),
        (13000, "13.2", "", [], "CUDA_VISIBLE_DEVICES is ''", "0 to 1"),
        (13000, "13.2", None, [], "no reason", "nvidia-smi"),
        (13000, "13.2", "0", ["CUDA unknown error"], "CUDA unknown error", "nvidia-smi"),
    ],
)
def test_why_torch_sees_no_gpu(
    monkeypatch: pytest.MonkeyPatch,
    cuda: int,
    built_for: str | None,
    visible: str | None,
    warned: list[str],
    why: str,
    advice: str,
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = why_torch_sees_none(Driver("570", cuda, ("H100", "H100")), built_for, warned)
    assert why in found[0]
    assert advice in found[1]


def test_a_gpu_that_does_not_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(size: int, device: str) -> torch.Tensor:
        if device == "cuda:1":
            raise RuntimeError("all CUDA-capable devices are busy\nmore")
        return torch.zeros(size)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "ones", busy)
    finding = list(machine.torch_and_gpus(Driver("610", 99000, ("H100", "H100"))))[-1]
    assert finding.state == "note"
    assert "computes on GPU 0; GPU 1 does not compute: all CUDA-capable" in finding.found
    assert "more" not in finding.found


# The machine


@pytest.mark.parametrize(("flags", "state"), [("sse avx2 fma", "ok"), ("avx avx2_not", "note")])
def test_a_processor_with_and_without_avx2(tmp_path: Path, flags: str, state: str) -> None:
    (tmp_path / "proc/cpuinfo").write_text(
        f"model name\t: A CPU\nflags\t: {flags}\n\nmodel name: B\n"
    )
    (finding,) = machine.cpu()
    assert finding.state == state
    assert finding.found.startswith(f"A CPU, {len(os.sched_getaffinity(0))} cores, ")
    assert ("its bits differ" in finding.advice) == (state == "note")


def test_the_kernels(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(bfloat16: bool) -> None:
        raise build.NoCompiler("cc: cannot find -lm")

    monkeypatch.delenv("STEADYSPIKE_KERNELS", raising=False)
    monkeypatch.setattr(build, "library", lambda bfloat16: None)
    assert list(machine.kernels(Driver())) == [Finding("kernels", "compiled")]
    monkeypatch.setattr(machine.sysconfig, "get_paths", lambda: {"include": str(tmp_path)})
    (finding,) = machine.kernels(Driver(gpus=("H100",)))
    assert "Python.h" in finding.found
    assert "python3-dev" in finding.advice
    monkeypatch.setattr(build, "library", fails)
    (finding,) = machine.kernels(Driver())
    assert (finding.state, finding.found) == ("note", "cc: cannot find -lm")
    assert "install gcc" in finding.advice
    monkeypatch.setenv("STEADYSPIKE_KERNELS", "off")
    (finding,) = machine.kernels(Driver())
    assert finding.advice.endswith("unset it")


def test_memory_and_its_limit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "proc/meminfo").write_text("MemTotal: 8388608 kB\nMemAvailable: 524288 kB\n")
    monkeypatch.setattr(machine, "SHARED_MEMORY", tmp_path / "none")
    found = lines(machine.memory())
    assert found["memory"] == ("ok", "512 MiB of 8.0 GiB free")
    assert found["shared memory"] == ("note", "0 MiB free")
    (tmp_path / "memory.max").write_text(f"{GIB // 4}\n")
    assert lines(machine.memory())["memory"][1].endswith("limited to 256 MiB in this container")
    (tmp_path / "memory.max").write_text("max\n")
    assert "limited" not in lines(machine.memory())["memory"][1]


def test_a_full_disk_and_folders_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without runs/ no training is possible; data sets are only read."""
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=GIB - 1))
    assert [finding.state for finding in machine.disk()] == ["note", "note"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [finding.state for finding in machine.disk()] == ["problem", "note"]
    assert f"user {os.geteuid()} cannot write to " in next(machine.disk()).found


# The checkout


def git(*arguments: str) -> None:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *own, *arguments], check=True, capture_output=True)


def test_the_commit_and_dvc_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    (finding,) = checkout.versions()
    assert "commit unknown: fatal: not a git repository" in finding.found
    git("init")
    Path("dvc.lock").write_text("a: 1\n")
    git("add", "dvc.lock")
    git("commit", "-m", "a")
    assert next(checkout.versions()).state == "ok"
    Path("dvc.lock").write_text("a: 2\n")
    assert "git diff dvc.lock" in next(checkout.versions()).advice
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert next(checkout.versions()).advice.startswith("git config --global --add safe.directory ")


def test_without_git(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("dvc.yaml").touch()
    assert next(checkout.versions()).state == "ok"  # a downloaded ZIP
    monkeypatch.setenv("PATH", "")
    assert "commit unknown: git is not installed" in next(checkout.versions()).found


def test_line_ends_of_windows() -> None:
    Path("tools").mkdir()
    Path(".dvc").mkdir()
    Path("tools/train.sh").write_bytes(b"#!/bin/sh\n")
    assert list(checkout.line_ends()) == []
    Path("tools/train.sh").write_bytes(b"#!/bin/sh\r\n")
    (finding,) = checkout.line_ends()
    assert finding.problem
    assert "tools/train.sh" in finding.found


def test_experiments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (finding,) = checkout.experiments(PARAMS)
    assert (finding.state, finding.found) == ("problem", "params.yaml: not found")
    PARAMS.write_text("experiments: {a: {devise: cpu}}")
    (finding,) = checkout.experiments(PARAMS)
    assert finding.state == "problem"
    assert "devise" in finding.found
    write_params(tmp_path, {"a": {}, "b": {"device": "cuda"}})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert lines(checkout.experiments(PARAMS))["device"] == (
        "problem",
        "b: cuda in params.yaml, but torch finds no GPU",
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "device" not in lines(checkout.experiments(PARAMS))


def test_data_sets(tmp_path: Path) -> None:
    write_params(tmp_path, {"a": {}, "b": {"dataset.name": "cifar10"}})
    found = lines(checkout.experiments(PARAMS))
    assert found["data cifar10"] == ("problem", "missing")
    assert found["data embedded"][0] == "problem"
    assert "missing (dvc pull data.dvc)" in next(checkout.data_here()).found
    write_data(tmp_path)
    (tmp_path / "datasets/cifar10").mkdir(parents=True)
    (tmp_path / "datasets/cifar10/a.tar.gz.part").touch()  # a download that broke off
    assert lines(checkout.experiments(PARAMS))["data cifar10"] == ("problem", "missing")
    (tmp_path / "datasets/cifar10/a.tar.gz").touch()
    found = lines(checkout.experiments(PARAMS))
    assert found["data embedded"] == ("ok", "here, checked")
    assert found["data cifar10"] == ("note", "here, not checked")
    (tmp_path / "datasets/cifar10.manifest.json").touch()
    found = lines(checkout.experiments(PARAMS))
    assert found["data cifar10"] == ("ok", "here, checked")
    assert found["data"] == ("ok", "datasets/ holds cifar10")
    assert next(checkout.data_here()).found == "embedded images here; datasets/ holds cifar10"
    image = next((tmp_path / "data").glob("train-images*"))
    image.write_bytes(image.read_bytes()[:-1])
    found = lines(checkout.experiments(PARAMS))
    assert found["data embedded"][0] == "problem"
    assert "embedded images changed (data/train-images" in next(checkout.data_here()).found
    own = {"dataset.name": "image_folder", "dataset.path": "own/mine", "dataset.size": 8}
    write_params(tmp_path, {"a": own})
    assert lines(checkout.experiments(PARAMS))["data own/mine"] == ("problem", "missing")
    (tmp_path / "own/mine").mkdir(parents=True)
    (tmp_path / "own/mine/a.png").touch()
    assert lines(checkout.experiments(PARAMS))["data own/mine"] == ("note", "here, not checked")
    (tmp_path / "own/mine.manifest.json").touch()
    assert lines(checkout.experiments(PARAMS))["data own/mine"] == ("ok", "here, checked")
    write_params(tmp_path, {"a": {"dataset.name": "cifer10"}})
    found = lines(checkout.experiments(PARAMS))
    assert "dataset.name: expected one of cifar10" in found["experiments"][1]


# The command


@pytest.mark.slow
def test_a_project_that_can_be_trained_and_one_that_cannot(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_params(tmp_path, {"a": {}})
    result = command(tmp_path, "doctor", "--json", "--strict", OMP_NUM_THREADS="7")
    assert (result.returncode, result.stderr) == (0, "")
    found = {finding.pop("topic"): finding for finding in json.loads(result.stdout)["findings"]}
    assert "2 threads, AVX2" in found["torch"]["found"]  # as training pins them
    assert (found["data embedded"]["state"], found["data embedded"]["advice"]) == ("ok", "")
    write_params(tmp_path, {"a": {"device": "cuda"}})
    for arguments, status in (((), 0), (("--strict",), 1)):
        result = in_process(tmp_path, "doctor", *arguments, CUDA_VISIBLE_DEVICES="")
        assert (result.returncode, result.stderr) == (status, "")
        assert "problem  device" in result.stdout
        assert "-> device: cpu works too" in result.stdout


def test_a_broken_torch_hides_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (tmp_path / "pynvml.py").write_text("")
    result = command(tmp_path, "doctor")
    assert (result.returncode, result.stderr) == (0, "")
    assert "cannot be imported: libcudart.so.13" in result.stdout
    assert "\nok       memory " in result.stdout
    assert len(result.stdout.splitlines()) > 10


def test_brief_is_three_lines_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise AssertionError('torch was loaded')")
    result = command(tmp_path, "doctor", "--brief")
    assert (result.returncode, result.stderr) == (0, "")
    gpu, cpu, data = result.stdout.splitlines()
    assert gpu.startswith("GPU: ")
    assert cpu.startswith("CPU: ")
    assert data.startswith("data: embedded images missing (dvc pull data.dvc); ")
    refused(in_process(tmp_path, "doctor", "--brief", "--strict"), "--strict: expected without")
