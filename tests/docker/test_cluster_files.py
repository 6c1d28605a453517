"""The files for Slurm and Kubernetes: valid, consistent, and able to train when run by a shell."""

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from torch.distributed.run import get_args_parser

from tiny import (
    contents,
    copy_dvc_project,
    environment,
    free_port,
    make_project,
    read_json,
    trained_by_two,
)

REPOSITORY = Path(__file__).parents[2]
SLURM = REPOSITORY / "docker/slurm.sbatch"
KUBERNETES = REPOSITORY / "docker/kubernetes.yaml"
Object = dict[str, Any]


def objects() -> dict[str, Object]:
    """The objects of kubernetes.yaml, by kind."""
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


def pod() -> Object:
    described: Object = objects()["Job"]["spec"]["template"]["spec"]
    return described


def variables(container: Object) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container["env"]}


@pytest.mark.parametrize("kind", ["Service", "PersistentVolumeClaim", "Job"])
def test_kubernetes_accepts_every_key(kind: str) -> None:
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(objects()[kind], version, strict=True)


def test_the_pods_find_each_other() -> None:
    job, service = objects()["Job"], objects()["Service"]
    (train,) = pod()["containers"]
    values = variables(train)
    name = job["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == int(values["MACHINES"])
    # A pod of an indexed Job is called by the Job's name and its index, below the Service's.
    assert values["FIRST"] == f"{name}-0.{service['metadata']['name']}"
    assert pod()["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": name}
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    (port,) = {one["port"] for one in service["spec"]["ports"]}
    assert [one["containerPort"] for one in train["ports"]] == [port]
    assert f'"$FIRST:{port}"' in train["args"][0]


def test_the_pods_hold_no_privilege_and_have_time_for_a_checkpoint() -> None:
    # torch's launcher kills its processes 30 s after it has asked them to stop.
    assert pod()["terminationGracePeriodSeconds"] > 30
    assert pod()["securityContext"]["runAsNonRoot"] is True
    assert pod()["securityContext"]["runAsUser"] > 0
    assert pod()["automountServiceAccountToken"] is False
    mounted = {one["name"]: one for one in pod()["volumes"]}
    assert mounted["shared-memory"]["emptyDir"]["medium"] == "Memory"
    for container in pod()["containers"] + pod()["initContainers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {mount["name"] for mount in container["volumeMounts"]} <= mounted.keys()


@pytest.mark.slow
def test_the_volume_is_filled_once(tmp_path: Path) -> None:
    """Pod 0 copies the image's checkout and the data into it; the others wait."""
    image, volume = tmp_path / "image", tmp_path / "volume"
    for folder in (image, volume):
        folder.mkdir()
    copy_dvc_project(image)
    shutil.copy(REPOSITORY / "params.yaml", image)
    (container,) = pod()["initContainers"]
    script = (
        container["args"][0].replace("/volume", str(volume)).replace("/steadyspike", str(image))
    )
    more = variables(container) | {"HOME": str(tmp_path), "DVC_SITE_CACHE_DIR": str(tmp_path)}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(index: int) -> "subprocess.Popen[bytes]":
        own = environment(PATH=path, JOB_COMPLETION_INDEX=str(index), **more)
        return subprocess.Popen([*container["command"], script], env=own, stderr=subprocess.PIPE)

    second = run(1)
    time.sleep(0.5)
    assert second.poll() is None
    assert not any(volume.iterdir())
    _, err = (first := run(0)).communicate(timeout=120)
    assert first.returncode == 0, err
    assert second.wait(timeout=30) == 0
    assert (volume / "data/manifest.json").is_file()
    (volume / "params.yaml").write_text("mine")
    assert run(0).wait(timeout=30) == 0
    assert (volume / "params.yaml").read_text() == "mine"


# Slurm


def tool(folder: Path, name: str, script: str) -> None:
    """A stand-in for one of Slurm's commands, which records each call in ``calls``."""
    path = folder / "bin" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'#!/bin/bash\necho "{name} $*" >> "$CALLS"\n{script}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def submit(folder: Path, *arguments: str, srun: str, **more: str) -> "subprocess.Popen[str]":
    """As sbatch runs the script, with the variables that Slurm sets."""
    tool(folder, "scontrol", "if [ $1 = show ]; then echo localhost; seq -f node%g 20000; fi")
    tool(folder, "scancel", 'kill -TERM "$(cat step)"')
    tool(folder, "srun", srun)
    python = folder / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    own = environment(
        PATH=f"{folder / 'bin'}:{os.environ['PATH']}",
        CALLS=str(folder / "calls"),
        SLURM_JOB_ID=str(os.getpid()),  # decides the port
        SLURM_JOB_NODELIST="node[1-2]",
        SLURM_JOB_NUM_NODES="2",
        **more,
    )
    return subprocess.Popen(
        ["bash", str(SLURM), *arguments],
        cwd=folder,
        env=own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def calls(folder: Path) -> list[str]:
    """Every call of a stand-in, with its arguments."""
    path = folder / "calls"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("gpus", [None, "4"])
def test_slurm_starts_one_launcher_on_each_node(tmp_path: Path, gpus: str | None) -> None:
    arguments = ("vggsnn-osr_ots", "--params", "a file.yaml")
    more = {"SLURM_GPUS_ON_NODE": gpus} if gpus else {}
    job = submit(tmp_path, *arguments, srun='printf "%s\\0" "$@" > line', **more)
    assert job.wait(timeout=30) == 0
    line = (tmp_path / "line").read_text().split("\0")[:-1]
    start = line.index(".venv/bin/python")
    assert all(option.startswith("--") for option in line[:start])
    assert line[start + 1 : start + 4] == ["-m", "steadyspike", "launch"]
    options = get_args_parser().parse_args(line[start + 4 :])  # torchrun's own
    assert (options.nnodes, options.nproc_per_node) == ("2", gpus or "1")
    host, port = options.rdzv_endpoint.split(":")
    assert host == "localhost"
    assert 29400 <= int(port) < 30400
    assert options.max_restarts > 0
    assert [options.training_script, *options.training_script_args] == ["train", *arguments]


def test_slurm_needs_an_experiment(tmp_path: Path) -> None:
    _, err = (job := submit(tmp_path, srun=":")).communicate(timeout=30)
    assert job.returncode == 2
    assert err.startswith("usage: sbatch docker/slurm.sbatch EXPERIMENT")
    assert calls(tmp_path) == []


def test_a_failed_job_is_not_requeued(tmp_path: Path) -> None:
    assert submit(tmp_path, "osr", srun="exit 3").wait(timeout=30) == 3
    assert not any("requeue" in call for call in calls(tmp_path))


@pytest.mark.parametrize("status", [143, 0], ids=["interrupted", "just finished"])
def test_a_job_near_its_time_limit_is_requeued(tmp_path: Path, status: int) -> None:
    """After the training has stopped by itself; a finished one is not requeued."""
    stopping = f"sleep 0.5; echo checkpoint >> $CALLS; exit {status}"
    srun = (
        f"trap '{stopping}' TERM; echo $$ > step.new; mv step.new step; while :; do sleep 0.1; done"
    )
    job = submit(tmp_path, "osr", srun=srun)
    give_up = time.monotonic() + 30
    while not (tmp_path / "step").exists():
        assert time.monotonic() < give_up
        time.sleep(0.01)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=30) == 0
    expected = ["checkpoint", f"scontrol requeue {os.getpid()}"][: 2 if status else 1]
    assert calls(tmp_path)[2:] == [f"scancel --signal=TERM {os.getpid()}", *expected]


# The same lines, run as two machines would run them.


@pytest.mark.slow
def test_two_nodes_of_slurm_train_together(tmp_path: Path) -> None:
    make_project(tmp_path)
    both = 'while [ "${1#--}" != "$1" ]; do shift; done; "$@" & "$@" & wait -n && wait -n'
    _, err = (job := submit(tmp_path, "tiny", srun=both)).communicate(timeout=240)
    assert job.returncode == 0, err
    assert read_json(tmp_path / "runs/tiny/environment.json")["processes"] == 2
    assert_trained_by_two(tmp_path)


def assert_trained_by_two(root: Path) -> None:
    ours, theirs = contents(root / "runs"), contents(trained_by_two() / "runs")
    assert ours.keys() == theirs.keys()
    for name in ("model.safetensors", "best.safetensors", "history.csv"):
        assert ours[f"tiny/{name}"] == theirs[f"tiny/{name}"], name


def processes(pid: int) -> list[int]:
    """A process and its descendants, which all end with a lost container."""
    children = [
        int(child)
        for thread in Path(f"/proc/{pid}/task").glob("*/children")
        for child in thread.read_text().split()
    ]
    return [pid, *(below for child in children for below in processes(child))]


@pytest.mark.slow
def test_training_continues_after_the_first_pod_was_lost(tmp_path: Path) -> None:
    """All pods are restarted; the result is that of undisturbed processes."""
    make_project(tmp_path)
    (train,) = pod()["containers"]
    script = train["args"][0].replace(":29400", f":{free_port()}")
    more = variables(train) | {"FIRST": "localhost", "EXPERIMENT": "tiny"}
    more["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    log = (tmp_path / "log").open("w")

    def start(index: int) -> "subprocess.Popen[bytes]":
        own = environment(JOB_COMPLETION_INDEX=str(index), **more)
        line = [*train["command"], script]
        return subprocess.Popen(line, cwd=tmp_path, env=own, stdout=log, stderr=log)

    pods = [start(0), start(1)]
    give_up, lost, starts = time.monotonic() + 240, False, 2
    while any(one.poll() != 0 for one in pods):
        assert time.monotonic() < give_up, (tmp_path / "log").read_text()
        if not lost and (tmp_path / "runs/tiny/checkpoint.pt").exists():
            lost = True
            for process in processes(pods[0].pid):
                os.kill(process, signal.SIGKILL)
        for index, one in enumerate(pods):  # restartPolicy: OnFailure
            if one.poll():
                pods[index], starts = start(index), starts + 1
        time.sleep(0.1)
    assert lost
    assert starts > 2
    assert_trained_by_two(tmp_path)
    assert "GPU: " in (tmp_path / "log").read_text()  # from `doctor --brief`
