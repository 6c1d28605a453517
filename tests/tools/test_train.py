"""A signal to `tools/train.sh` or to DVC alone ends training too, with a checkpoint."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tiny import REPOSITORY, environment, make_project

BIN = Path(sys.executable).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process of its parent"),
    pytest.mark.skipif(not (BIN / "dvc").exists(), reason="DVC is not installed"),
]


@pytest.mark.parametrize(
    ("shell", "command", "number"),
    [
        ("bash", ["tools/train.sh"], signal.SIGTERM),
        ("sh", ["tools/train.sh"], signal.SIGHUP),
        ("sh", ["dvc", "repro"], signal.SIGTERM),
    ],
)
def test_training_ends_with_what_started_it(
    tmp_path: Path, shell: str, command: list[str], number: signal.Signals
) -> None:
    make_project(tmp_path)
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 8", "epochs: 10000"))
    (tmp_path / "tools").mkdir()
    shutil.copy(REPOSITORY / "tools/train.sh", tmp_path / "tools")
    (tmp_path / "tools/data.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tools/data.sh").chmod(0o755)
    (tmp_path / "dvc.yaml").write_text("stages: {train: {cmd: python -m steadyspike train tiny}}")
    path = f"{BIN}:{os.environ['PATH']}"
    own = environment(PATH=path, SHELL=f"/bin/{shell}", DVC_SITE_CACHE_DIR=str(tmp_path / ".site"))
    subprocess.run(["dvc", "init", "--no-scm", "--quiet"], cwd=tmp_path, env=own, check=True)
    process = subprocess.Popen(command, cwd=tmp_path, env=own, start_new_session=True)
    try:
        checkpoint = tmp_path / "runs/tiny/checkpoint.pt"
        while not checkpoint.exists():
            assert process.poll() is None
            time.sleep(0.2)
        below = psutil.Process(process.pid).children(recursive=True)
        assert any("steadyspike" in each.cmdline() for each in below)
        written = checkpoint.stat().st_mtime_ns
        process.send_signal(number)
        assert psutil.wait_procs(below, timeout=30)[1] == []
        assert process.wait(30) == -number
        assert checkpoint.stat().st_mtime_ns > written
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
