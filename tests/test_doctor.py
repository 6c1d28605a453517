"""`steadyspike doctor`: on good machines, on poor ones and on strange ones."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from steadyspike.data.dataset import fetched_root
from steadyspike.doctor import experiments, framework, gpu, machine, project, table
from steadyspike.doctor.brief import brief
from steadyspike.doctor.finding import Finding, looked_at, size
from steadyspike.doctor.gpu import Driver, Gpu, ask_driver, driver_findings, why_none
from steadyspike.kernels import compiled
from tiny import command, environment, refused, write_data, write_params

TOPICS = [
    "steadyspike",
    "driver",
    "torch",
    "CPU",
    "C compiler",
    "CPU kernels",
    "memory",
    "shared memory",
    "checkout",
    "experiments",
    "data embedded",
    "other data",
    "DVC",
    "determinism",
]
GIB = 1 << 30


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder of its own, on a machine without driver, container or limits."""
    monkeypatch.chdir(tmp_path)
    for module, name in ((gpu, "SYS"), (gpu, "ROOT"), (machine, "CGROUP")):
        monkeypatch.setattr(module, name, tmp_path / "none")
    monkeypatch.setattr(gpu, "PROC", tmp_path / "none")
    for variable in ("KUBERNETES_SERVICE_HOST", "CUDA_VISIBLE_DEVICES", "STEADYSPIKE_DATA"):
        monkeypatch.delenv(variable, raising=False)


class NVMLError(Exception):
    pass


class FakeNvml:
    """pynvml of a machine with these GPUs: (name, free, total); an exception is raised instead."""

    NVMLError = NVMLError

    def __init__(self, gpus: list[Any], init: Exception | None = None) -> None:
        self.gpus, self.init, self.open = gpus, init, 0

    def nvmlInit(self) -> None:
        if self.init:
            raise self.init
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "610.43"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 13020

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        if isinstance(self.gpus[index], Exception):
            raise self.gpus[index]
        return self.gpus[index]

    def nvmlDeviceGetName(self, handle: Any) -> bytes:
        return handle[0].encode()

    def nvmlDeviceGetMemoryInfo(self, handle: Any) -> Any:
        if handle[1] is None:
            raise NVMLError("Not Supported")
        return SimpleNamespace(free=handle[1], total=handle[2])


@pytest.fixture
def plug(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Puts a driver with these GPUs in; it must be closed again in the end."""
    plugged = []

    def put(*gpus: Any, init: Exception | None = None) -> None:
        plugged.append(FakeNvml(list(gpus), init))
        monkeypatch.setitem(sys.modules, "pynvml", plugged[-1])

    yield put
    assert all(nvml.open == 0 for nvml in plugged)


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.topic, one.state, one.found) for one in findings]


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


# The machine


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
    assert machine.COMPILERS == compiled.COMPILERS
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
        raise compiled.NoCompiler("cc: cannot find -lm")

    with monkeypatch.context() as patch:
        patch.setenv("STEADYSPIKE_KERNELS", "off")
        assert told(framework.kernels()) == [("CPU kernels", "note", "STEADYSPIKE_KERNELS=off")]
    monkeypatch.delenv("STEADYSPIKE_KERNELS", raising=False)
    monkeypatch.setattr(compiled, "library", lambda bfloat16: None)
    assert told(framework.kernels()) == [("CPU kernels", "ok", "compiled")]
    monkeypatch.setattr(compiled, "library", fails)
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


# The checkout


def test_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert [(one.topic, one.state) for one in project.disks()] == [("checkout", "ok")]
    monkeypatch.setenv("STEADYSPIKE_DATA", "/dev/shm/not/there/yet")
    assert [one.topic for one in project.disks()] == ["checkout", "datasets"]
    usage = SimpleNamespace(total=2, free=1)
    monkeypatch.setattr(project.shutil, "disk_usage", lambda _: usage)
    assert project.disks()[0].state == "note"
    assert "make room" in project.disks()[0].advice


def test_a_folder_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """That of the runs would stop training; data sets are only read."""
    real = os.access
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path.name != "runs" and real(path, mode))
    checkout, runs = project.disks()
    assert (checkout.state, runs.state) == ("ok", "problem")
    assert runs.found.startswith(f"{tmp_path}/runs cannot be written by user {os.geteuid()}")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert [one.state for one in project.disks()] == ["note", "problem", "note"]


def test_the_root_of_the_data_sets_is_that_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, "", "elsewhere"):
        if value is not None:
            monkeypatch.setenv("STEADYSPIKE_DATA", value)
        assert project.fetched_root() == fetched_root(None)


def git(*arguments: str) -> None:
    own = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *own, *arguments], check=True, capture_output=True)


def test_dvc_and_its_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    assert project.dvc()[0].found == "this folder is no DVC checkout"
    Path(".dvc").mkdir()
    assert "dvc.lock missing" in project.dvc()[0].found
    lock = Path("dvc.lock")
    lock.write_text("a: 1\n")
    (finding,) = project.dvc()
    assert (finding.state, finding.facts["lock"]) == ("ok", None)
    assert "not compared (not a git repository" in finding.found
    git("init")
    assert project.dvc()[0].facts["lock"] == "not committed"
    git("add", "dvc.lock")
    git("commit", "-m", "a")
    assert told(project.dvc())[0][1:] == (
        "ok",
        f"{project.dvc()[0].facts['version']}, dvc.lock as committed",
    )
    assert "commit " in project.version()[0].found
    lock.write_text("a: 2\n")
    (finding,) = project.dvc()
    assert (finding.state, finding.facts["lock"]) == ("note", "changed")
    assert project.version()[0].facts["changed"] == 1
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    assert "safe.directory" in project.version()[0].advice
    monkeypatch.setenv("PATH", "/nothing")
    assert "git is not installed" in project.version()[0].found
    monkeypatch.setitem(sys.modules, "dvc.repo", None)
    assert project.dvc()[0].found.startswith("dvc cannot be imported")


def test_the_embedded_data_pulled_or_not(tmp_path: Path) -> None:
    assert project.pulled() == []
    write_data(tmp_path)
    sizes = [path.stat().st_size for path in (tmp_path / "data").iterdir()]
    out = f"{{path: data, nfiles: {len(sizes)}, size: {sum(sizes)}}}"
    (tmp_path / "data.dvc").write_text(f"outs: [{out}]\n")
    assert told(project.pulled())[0][1:] == ("ok", f"data/ is pulled, {size(sum(sizes))}")
    (tmp_path / "data/manifest.json").write_text("{}")
    (finding,) = project.pulled()
    assert (finding.state, finding.advice) == ("note", "dvc pull data.dvc --force")
    shutil.rmtree(tmp_path / "data")
    assert told(project.pulled()) == [("data.dvc", "note", "data/ is not pulled")]
    assert brief()[2].startswith("data: data/ is not pulled: dvc pull data.dvc; datasets/ holds no")


# What the experiments want


def states(findings: list[Finding]) -> dict[str, tuple[str, str]]:
    return {one.topic: (one.state, one.found) for one in findings}


def test_data_sets(tmp_path: Path) -> None:
    params = Path("params.yaml")
    write_params(tmp_path, {"a": {}, "b": {"dataset.name": "cifar10"}})
    found = states(experiments.data_sets(params))
    assert found["data cifar10"] == ("problem", "missing")
    assert found["data embedded"][0] == "problem"
    assert "dvc pull data.dvc" in found["data embedded"][1]
    assert "cifar100" in found["other data"][1]
    assert "cifar10," not in found["other data"][1]

    write_data(tmp_path)
    (tmp_path / "datasets/cifar10").mkdir(parents=True)
    (tmp_path / "datasets/imagenet.manifest.json").touch()
    found = states(experiments.data_sets(params))
    assert found["data embedded"] == ("ok", "here, checked")
    assert found["data cifar10"] == ("note", "here, not checked yet")
    assert found["data imagenet"] == ("ok", "here, checked")
    assert brief()[2] == "data: datasets/ holds imagenet"

    image = next((tmp_path / "data").glob("train-images*"))
    image.write_bytes(image.read_bytes()[:-1])
    write_params(tmp_path, {"b": {"dataset.name": "cifer10"}})
    found = states(experiments.data_sets(params))
    assert found["data cifer10"] == ("problem", "no such data set")
    assert found["data embedded"][0] == "note"  # nothing here wants it
    assert "truncated" in found["data embedded"][1]


def test_experiments(tmp_path: Path) -> None:
    params = Path("params.yaml")
    (finding,) = experiments.experiments(params, 0)
    assert (finding.state, finding.found) == ("problem", "params.yaml: not found")
    write_params(tmp_path, {"a": {}, "b": {"device": "cuda"}, "c": {"device": "cuda"}})
    (finding,) = experiments.experiments(params, 0)
    assert finding.state == "problem"
    assert finding.found == "device: cuda in b, c of params.yaml, and torch finds no GPU"
    assert experiments.experiments(params, 1)[0].state == "ok"
    params.write_text("experiments: {a: {devise: cpu}}")
    assert "devise" in experiments.experiments(params, 1)[0].found


# The command


def test_a_question_that_fails_is_a_note() -> None:
    def fails() -> list[Finding]:
        raise KeyError("MemAvailable")

    assert told(looked_at("memory", fails)) == [
        ("memory", "note", "could not be found out: 'MemAvailable'")
    ]


def diagnosis(root: Path, *arguments: str, **more: str) -> dict[str, dict[str, Any]]:
    result = command(root, "doctor", "--json", *arguments, **more)
    assert (result.returncode, result.stderr) == (0, "")
    findings = json.loads(result.stdout)["findings"]
    assert all(set(one) == {"advice", "facts", "found", "state", "topic"} for one in findings)
    assert {one["state"] for one in findings} <= {"ok", "note", "problem"}
    return {one["topic"]: one for one in findings}


def test_a_project_that_can_be_trained(tmp_path: Path) -> None:
    write_data(tmp_path)
    write_params(tmp_path, {"a": {}})
    found = diagnosis(tmp_path, "--strict", OMP_NUM_THREADS="7", CUDA_VISIBLE_DEVICES="")
    assert list(found) == TOPICS
    settings = found["determinism"]
    assert settings["facts"]["algorithms"] is True
    assert settings["facts"]["threads"] == 2
    assert settings["facts"]["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS=7" in settings["advice"]


def test_a_project_that_cannot_be_trained(tmp_path: Path) -> None:
    """Only --strict makes a failure of it."""
    write_data(tmp_path)
    write_params(tmp_path, {"a": {"device": "cuda"}})
    for arguments, status in (((), 0), (("--strict",), 1)):
        result = command(tmp_path, "doctor", *arguments, CUDA_VISIBLE_DEVICES="")
        assert (result.returncode, result.stderr) == (status, "")
        assert "problem  experiments" in result.stdout
        assert "-> device: cpu trains the same" in result.stdout


def test_a_strange_machine(tmp_path: Path) -> None:
    """torch that does not load, NVML that is no NVML, no params.yaml: an answer all the same."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so.13: cannot open')")
    (tmp_path / "pynvml.py").write_text("")
    found = diagnosis(tmp_path)
    assert found["torch"]["state"] == "problem"
    assert "libcudart.so.13" in found["torch"]["found"]
    assert "libcudart.so.13" in found["data sets"]["found"]
    assert found["driver"]["found"].startswith("no GPU found")
    assert found["experiments"]["found"] == "params.yaml: not found"
    assert found["CPU"]["facts"]["cores"] >= 1
    assert command(tmp_path, "doctor", "--brief").returncode == 0


def test_brief_is_three_lines_without_torch(tmp_path: Path) -> None:
    write_data(tmp_path)
    program = (
        "import sys\nfrom steadyspike.cli import main\n"
        "try:\n    main(['doctor', '--brief'])\n"
        "except SystemExit as end:\n    print(end.code, file=sys.stderr)\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'dvc', 'rich', 'matplotlib'}\n"
        "print(heavy & set(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert result.stderr == "0\nset()\n"
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    assert lines[1].startswith("CPU: ")
    assert "shared memory" in lines[1]
    assert lines[2].startswith("data: ")


def test_brief_answers_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise RuntimeError("odd")

    monkeypatch.setattr(gpu, "ask_driver", broken)
    monkeypatch.setattr(machine, "cores_told", broken)
    monkeypatch.setattr(project, "pulled", broken)
    assert brief() == [
        "gpu: could not be found out: odd",
        "processor: could not be found out: odd",
        "data: could not be found out: odd",
    ]


def test_brief_is_not_strict(tmp_path: Path) -> None:
    refused(command(tmp_path, "doctor", "--brief", "--strict"), "--strict: expected without")


def test_the_table_of_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    findings = [Finding("CPU", "ok", "A CPU"), Finding("data", "problem", "none", "fetch [it]")]
    table.show(findings)
    out = capsys.readouterr().out
    assert "\x1b[32mok" in out  # green
    lines = [re.sub("\x1b\\[[0-9;]*m", "", line).split() for line in out.splitlines()]
    assert lines == [["ok", "CPU", "A", "CPU"], ["problem", "data", "none"], ["→", "fetch", "[it]"]]


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (64 << 20, "64 MiB"), (3 << 39, "1536.0 GiB")],
)
def test_sizes(count: int, expected: str) -> None:
    assert size(count) == expected
