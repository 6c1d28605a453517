import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from steadyspike.pins import CPU_PINS, pin_cpu
from tiny import OUTPUTS, environment, outputs, python, read_json, write_data, write_params

# Settings that a user's shell may hold, each of which would change the bits.
ADVERSE = {
    "OMP_NUM_THREADS": "7",
    "MKL_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "AUTO",
    "OMP_DYNAMIC": "TRUE",
    "MKL_DYNAMIC": "TRUE",
    "OMP_SCHEDULE": "dynamic",
    "OMP_THREAD_LIMIT": "1",
    "OMP_MAX_ACTIVE_LEVELS": "0",
}


def test_pinning_after_torch_has_loaded_is_an_error() -> None:
    before = dict(os.environ)
    assert "torch" in sys.modules
    with pytest.raises(RuntimeError, match="before torch is imported"):
        pin_cpu()
    assert dict(os.environ) == before


PROGRAM = """
import json, os, sys
import steadyspike.cli
from steadyspike.pins import CPU_PINS, pin_cpu
early = "torch" in sys.modules
pin_cpu()
import torch
print(json.dumps({
    "early": early,
    "environment": {name: os.environ.get(name) for name in CPU_PINS},
    "cublas": os.environ["CUBLAS_WORKSPACE_CONFIG"],
    "threads": torch.get_num_threads(),
    "capability": torch.backends.cpu.get_cpu_capability(),
}))
"""


def test_torch_starts_pinned_whatever_the_shell_says() -> None:
    result = python(PROGRAM, **ADVERSE, CUBLAS_WORKSPACE_CONFIG=":16:8")
    got = json.loads(result.stdout)
    assert got == {
        "early": False,
        "environment": CPU_PINS,
        "cublas": ":16:8",  # either is deterministic, so the user's choice stands
        "threads": 2,
        "capability": "AVX2",
    }


WIDE = {"model.widths": [16, "P", 32], "training.epochs": 1, "training.batch": 50}
TRAIN = "from steadyspike.cli import main; main(['train', 'wide'])"


def train(root: Path, *before: str, program: str = TRAIN, **more: str) -> dict[str, bytes]:
    """The outputs of a network wide enough for two threads and for whole vectors."""
    root.mkdir(parents=True)
    write_data(root, train=200, test=20)
    write_params(root, {"wide": WIDE})
    subprocess.run(
        [*before, sys.executable, "-c", program],
        cwd=root,
        env=environment(**more),
        check=True,
        capture_output=True,
        timeout=120,
    )
    return outputs(root / "runs" / "wide")


@pytest.mark.slow
def test_the_same_bytes_in_any_place_environment_and_number_of_cores(tmp_path: Path) -> None:
    core = str(min(os.sched_getaffinity(0)))
    one_core = ("taskset", "-c", core) if shutil.which("taskset") else ()
    foreign = {
        "LC_ALL": "tr_TR.UTF-8",
        "LANG": "C",
        "TZ": "Asia/Kathmandu",
        "PYTHONHASHSEED": "12345",
        "PYTHONOPTIMIZE": "1",
        "COLUMNS": "7",
        "TERM": "dumb",
    }
    # Without the pins the bits do differ, or the comparison would show nothing.
    unpinned = (
        "from steadyspike import pins; pins.CPU_PINS['ATEN_CPU_CAPABILITY'] = 'default'; " + TRAIN
    )
    with ThreadPoolExecutor() as pool:
        plain = pool.submit(train, tmp_path / "plain")
        other = pool.submit(train, tmp_path / "a place" / "ö", *one_core, **foreign, **ADVERSE)
        differing = pool.submit(train, tmp_path / "unpinned", program=unpinned)
    for name in OUTPUTS:
        assert other.result()[name] == plain.result()[name], name
    recorded = read_json(tmp_path / "plain" / "runs" / "wide" / "environment.json")
    assert (recorded["cpu_capability"], recorded["threads"]) == ("AVX2", 2)
    assert differing.result()["model.safetensors"] != plain.result()["model.safetensors"]


def test_avx2_is_not_pinned_on_a_processor_without_it(tmp_path: Path) -> None:
    """Torch does not check, and would crash."""
    (tmp_path / "cpuinfo").write_text("flags\t: sse sse2\n")
    code = (
        "import os, pathlib, sys; from steadyspike import pins; "
        f"pins.has_avx2.__defaults__ = (pathlib.Path({str(tmp_path / 'cpuinfo')!r}),); "
        "pins.pin_cpu(); print(os.environ.get('ATEN_CPU_CAPABILITY'))"
    )
    result = python(code)
    assert result.stdout == "None\n"
    assert "no AVX2" in result.stderr
    assert len(result.stderr.splitlines()) == 1
