"""docs/export.md does what it says, as it is written."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from tiny import REPOSITORY, in_process, write_data, write_params

PAGE = (REPOSITORY / "docs/export.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project that was trained, with an experiment of the page's name."""
    root = tmp_path_factory.mktemp("project")
    write_data(root)
    write_params(
        root, {"osr_ots": {}}, **{"training.epochs": 2, "model.widths": [4, "P", 4, "P", 4]}
    )
    assert in_process(root, "train", "osr_ots").returncode == 0
    return root


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_commands_of_the_page_in_their_order(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("nir", "spikingjelly", "sinabs", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="uv pip install --no-deps -r requirements-export.lock")
    install, *commands = blocks("sh")[0].splitlines()
    assert install == "uv pip install --no-deps --requirement requirements-export.lock"
    simulators, onnx = blocks("python")
    assert len([line for line in (blocks("sh")[0] + simulators).splitlines() if line]) <= 10
    monkeypatch.chdir(project)
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "steadyspike"
        assert in_process(project, *arguments).returncode == 0
    names: dict[str, Any] = {}
    exec(simulators, names)
    out = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in out] == ["spikingjelly", "sinabs"]
    assert out[0].partition(" ")[2] == out[1].partition(" ")[2]
    assert names["spikes"].keys() == {"features_0", "features_2", "features_4"}

    expected = names["logits"].sum(0).argmax(1).numpy()
    result = in_process(project, "export", "osr_ots", "--threshold=layer", "--out=osr_ots.onnx")
    assert result.returncode == 0, result.stderr
    exec(onnx, names)
    # In float32 a rare spike differs.
    assert (names["votes"].argmax(1) == expected).sum() >= len(expected) - 1
