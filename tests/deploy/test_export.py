"""`steadyspike export`: what it writes and says, and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from steadyspike import data, sequence
from steadyspike.data.collate import evaluation_clip
from steadyspike.evaluate.run import load_run
from steadyspike.snn.neuron import LIF
from steadyspike.train.config import load_experiment
from tiny import change_json, contents, in_process, refused, write_data, write_params

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "ots": {},
    "zero": {"model.reset": "zero", "model.stabilize_threshold": False},
    "vanilla": {"model.norm": "per_step", "model.dropout": 0.0},
    "own": {"model.inference_threshold": "layer", "seeds": [4, 5]},
    "tab": {"model.norm": "tab"},
    "ws": {"model.norm": "ws"},
    "sew": {"model.name": "sew_resnet34", "model.widths": [2, 2], "model.blocks": [1, 1]},
    "untrained": {},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with trained experiments; its own files are not changed."""
    root = tmp_path_factory.mktemp("project")
    write_data(root)
    settings = {"training.epochs": 1, "model.widths": [2, "P", 2], "training.batch": 20}
    write_params(root, EXPERIMENTS, **settings)
    for name in EXPERIMENTS.keys() - {"untrained"}:
        result = in_process(root, "train", name)
        assert result.returncode == 0, result.stderr
    return root


def export(root: Path, *arguments: str) -> Any:
    return in_process(root, "export", *arguments)


def test_a_program_gives_the_logits_of_the_run(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.pt2"
    result = export(project, "own", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{out}: 2 layers of neurons, 88 weights\n"
    dataset = data.load("embedded", project)
    run = load_experiment(project / "params.yaml", "own").runs[0]  # its first seed
    model, _ = load_run(run, dataset, project / "runs/own")
    images: Any = dataset.test
    frames = evaluation_clip(images.images, dataset, steps=4)
    step = torch.export.load(str(out)).module()
    membranes = [torch.zeros(30, 2, 28, 28), torch.zeros(30, 2, 14, 14)]
    with torch.no_grad(), sequence(model, steps=4):
        expected = model(frames)
        for frame, logits in zip(frames, expected, strict=True):
            found, *membranes = step(frame, *membranes)
            torch.testing.assert_close(found, logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "arguments", "notes"),
    [
        ("ots", ("--threshold=layer",), ("dropout is left out", "no reset by subtraction")),
        ("zero", (), ("dropout is left out",)),
        ("zero", ("--threshold=layer",), ("dropout is left out",)),
        ("vanilla", ("--threshold=layer",), ("per_step trains with", "no reset by subtraction")),
    ],
)
def test_notes_say_what_was_folded_and_left_out(
    name: str, arguments: tuple[str, ...], notes: tuple[str, ...], project: Path, tmp_path: Path
) -> None:
    nir = pytest.importorskip("nir", reason="uv pip install --no-deps -r requirements-export.lock")
    out = tmp_path / "net.nir"
    result = export(project, name, "--out", str(out), *arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == len(notes)
    for line, note in zip(lines, notes, strict=True):
        assert line.startswith("steadyspike: note: ")
        assert note in line
    metadata = nir.read(out).metadata
    assert metadata["reset"] == ("zero" if name == "zero" else "subtract")
    assert metadata["experiment"] == name
    assert metadata["steps"] == 4
    dataset = data.load("embedded", project)
    assert list(metadata["mean"]) == list(dataset.mean)
    assert list(metadata["std"]) == list(dataset.std)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ots",), r"ots: model\.inference_threshold: live .*--threshold layer"),
        (("untrained",), r"runs/untrained: no such folder; expected that of a finished run"),
        (("tab", "--threshold=layer"), r"tab: model\.norm: tab cannot be folded into weights, exp"),
        (
            ("ws", "--threshold=layer"),
            r"ws: model\.norm: ws cannot be folded .*, expected one of osr",
        ),
        (("none",), r"runs/none: no such folder"),
        (("sew", "--threshold=layer"), r"sew: model\.name: expected vggsnn or resnet19, .*\.onnx"),
    ],
)
def test_runs_that_cannot_be_exported(
    arguments: tuple[str, ...], message: str, project: Path, tmp_path: Path
) -> None:
    result = export(project, *arguments, "--out", str(tmp_path / "net.nir"))
    refused(result, message)
    assert contents(tmp_path) == {}


def test_names_that_cannot_be_written(project: Path, tmp_path: Path) -> None:
    existing = tmp_path / "net.nir"
    existing.write_text("mine")
    for name, message in {
        str(existing): r"net\.nir: exists already",
        str(tmp_path / "net.h5"): r"--out: expected a name that ends in \.nir, \.onnx, \.pt2",
    }.items():
        refused(export(project, "zero", "--out", name), message)
    assert contents(tmp_path) == {"net.nir": b"mine"}


def test_a_run_of_other_parameters(project: Path, tmp_path: Path) -> None:
    shutil.copytree(project, tmp_path / "project")
    digests = tmp_path / "project/runs/zero/digests.json"
    change_json(digests, lambda record: record.update(fingerprint="0" * 64))
    refused(export(tmp_path / "project", "zero", "--out=net.pt2"), "trained with other parameters")


def test_a_network_whose_folded_form_is_another(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an option of a layer would be that folding does not know of."""
    forward = LIF.forward
    monkeypatch.setattr(LIF, "forward", lambda self, x, *rest: forward(self, 1.5 * x, *rest))
    result = export(project, "zero", "--out", str(tmp_path / "net.pt2"))
    refused(result, "zero: model: this network cannot be folded")
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(("suffix", "package"), [(".nir", "nir"), (".onnx", "onnx")])
def test_a_package_that_is_not_installed(
    suffix: str, package: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    result = export(project, "zero", "--out", str(tmp_path / f"net{suffix}"))
    refused(result, rf"{package} is not installed: uv pip install .*requirements-export\.lock")
    assert contents(tmp_path) == {}
