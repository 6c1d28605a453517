"""Exported networks fire the same spikes in SpikingJelly, norse, sinabs and snnTorch."""

import importlib.metadata
import math
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from deploy.importers import spikes_of_the_importer_alone
from deploy.networks import SHAPE, clip, learned, spikes_and_logits
from steadyspike import data
from steadyspike.data import Dataset
from steadyspike.data.collate import evaluation_clip
from steadyspike.deploy.fold import fold
from steadyspike.deploy.nir_file import write_nir
from steadyspike.deploy.simulators import SIMULATORS, load, simulate
from steadyspike.errors import UserError
from steadyspike.train.accuracy import Presentation, evaluate
from steadyspike.train.trainer import Trainer
from tiny import REPOSITORY, finish, one_line, tiny_experiment

pytestmark = pytest.mark.filterwarnings("ignore")  # theirs
Reset = Literal["subtract", "zero"]
resets = pytest.mark.parametrize("reset", ["zero", "subtract"])
simulators = pytest.mark.parametrize("simulator", SIMULATORS)


def needs(simulator: str) -> None:
    for package in ("nir", simulator):
        pytest.importorskip(package, reason="uv pip install --no-deps -r requirements-export.lock")


@simulators
@resets
@pytest.mark.parametrize("name", ["vggsnn", "gesture", "resnet19"])
def test_every_spike_is_the_same(name: str, reset: Reset, simulator: str, tmp_path: Path) -> None:
    needs(simulator)
    model = learned(name, reset=reset)
    write_nir(tmp_path / "net.nir", fold(model, SHAPE))
    network = load(tmp_path / "net.nir", simulator)
    for batch in (3, 8):  # each from rest, whatever came before
        frames = clip(batch, seed=99)
        expected, logits = spikes_and_logits(model, frames)
        found_logits, found = simulate(network, frames)
        for mine, theirs in zip(expected, found.values(), strict=True):
            assert 0 < mine.sum() < mine.numel()
            assert torch.equal(theirs, mine.double())
        torch.testing.assert_close(found_logits, logits, rtol=1e-10, atol=1e-10)


@simulators
@resets
def test_other_time_constants_and_thresholds(reset: Reset, simulator: str, tmp_path: Path) -> None:
    needs(simulator)
    model = learned(
        "vggsnn", reset=reset, tau=3.5, v_threshold=0.7, norm="linear", stabilize_threshold=False
    )
    write_nir(tmp_path / "net.nir", fold(model, SHAPE))
    frames = clip(8, seed=99)
    expected, _ = spikes_and_logits(model, frames)
    _, found = simulate(load(tmp_path / "net.nir", simulator), frames)
    for mine, theirs in zip(expected, found.values(), strict=True):
        assert torch.equal(theirs, mine.double())


@pytest.fixture(scope="module")
def embedded() -> Dataset:
    return data.load("embedded", REPOSITORY)


@pytest.fixture(scope="module", params=["zero", "subtract"])
def trained(
    request: pytest.FixtureRequest, embedded: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Tensor, float]:
    """A NIR file of a network trained on the embedded images, the test clip, and its accuracy."""
    pytest.importorskip("nir")
    experiment = tiny_experiment(
        **{
            "model.widths": [4, "P", 8, "P", 8],
            "model.dropout": 0.0,
            "model.reset": request.param,
            "model.inference_threshold": "layer",
            "training.epochs": 1,
            "training.batch": 50,
            "dataset.augmentation": "none",
        }
    )
    model = finish(Trainer(experiment, embedded)).model.double()
    score = evaluate(model, embedded, Presentation.of(experiment))
    path = tmp_path_factory.mktemp("trained") / "net.nir"
    write_nir(path, fold(model, (1, 28, 28)))
    images: Any = embedded.test
    frames = evaluation_clip(images.images, embedded, steps=4, dtype=torch.float64)
    return path, frames, score.accuracy


@pytest.mark.slow
@simulators
def test_the_accuracy_on_the_embedded_images_is_the_same(
    simulator: str, trained: tuple[Path, Tensor, float], embedded: Dataset
) -> None:
    needs(simulator)
    path, frames, accuracy = trained
    network = load(path, simulator)
    logits = torch.cat([simulate(network, part)[0].sum(0) for part in frames.split(100, 1)])
    correct = (logits.argmax(1) == embedded.test.labels).sum().item()
    assert accuracy > 20  # percent; it has learned something
    assert 100 * correct / len(logits) == pytest.approx(accuracy, abs=1e-9)


# The table of docs/export.md


def different(simulator: str, name: str, reset: Reset, folder: Path) -> str:
    """The share of spikes that the simulator's importer alone gets wrong, as the table has it."""
    model = learned(name, reset=reset)
    folded = fold(model, SHAPE)
    write_nir(folder / f"{name}.nir", folded)
    frames = clip(16, seed=99)
    expected, _ = spikes_and_logits(model, frames)
    try:
        found = spikes_of_the_importer_alone(
            simulator, folder / f"{name}.nir", list(folded.neurons), frames
        )
    except ValueError:
        return "refuses"
    wrong = sum(
        int((theirs != mine.reshape(theirs.shape)).sum())
        for mine, theirs in zip(expected, found, strict=True)
    )
    return f"{100 * wrong / sum(map(math.prod, (s.shape for s in expected))):.1f} %"


@simulators
@resets
def test_the_table_of_what_importers_do_alone(simulator: str, reset: Reset, tmp_path: Path) -> None:
    needs(simulator)
    text = (REPOSITORY / "docs/export.md").read_text()
    rows = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if "|" in line]
    (row,) = [row for row in rows if row[0].lower().startswith(simulator) and row[2] == reset]
    alone = [different(simulator, name, reset, tmp_path) for name in ("vggsnn", "resnet19")]
    assert row[1:5] == [importlib.metadata.version(simulator), reset, *alone]


# Refused


def test_a_simulator_that_is_unknown_or_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"expected one of spikingjelly, .*got 'brian2'"):
        load(tmp_path / "net.nir", "brian2")
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    with pytest.raises(UserError, match=r"nir is not installed: uv pip install .*export\.lock"):
        load(tmp_path / "net.nir", "norse")


def test_files_that_are_none_of_ours(tmp_path: Path) -> None:
    nir = pytest.importorskip("nir", reason="uv pip install --no-deps -r requirements-export.lock")
    with pytest.raises(UserError, match=r"net\.nir: not found"):
        load(tmp_path / "net.nir", "norse")
    (tmp_path / "net.nir").write_text("no NIR")
    with pytest.raises(UserError, match=r"net\.nir: not a NIR file"):
        load(tmp_path / "net.nir", "norse")
    with pytest.raises(UserError, match=r"not a NIR file: ") as folder:
        load(tmp_path, "norse")
    one_line(folder.value, str(tmp_path))
    threshold = nir.Threshold(torch.ones(2).numpy())
    nir.write(tmp_path / "other.nir", nir.NIRGraph.from_list(threshold))
    with pytest.raises(UserError, match=r"other\.nir: metadata\.reset: .*steadyspike exported"):
        load(tmp_path / "other.nir", "norse")
    graph = nir.NIRGraph.from_list(threshold)
    graph.metadata = {"reset": "zero"}
    nir.write(tmp_path / "timeless.nir", graph)
    with pytest.raises(UserError, match=r"timeless\.nir: metadata\.dt: .*steadyspike exported"):
        load(tmp_path / "timeless.nir", "norse")
