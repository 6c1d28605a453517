"""Shared networks: what `export --card` writes, and what `predict` and `evaluate` read back."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml

from steadyspike import __version__, data
from steadyspike.data.published import PUBLISHED
from steadyspike.evaluate.metrics import read_metrics
from tiny import (
    change_json,
    contents,
    in_process,
    read_json,
    refused,
    trained,
    write_data,
    write_params,
)

FILES = {"README.md", "config.json", "model.safetensors"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained and evaluated project in ``project``, and its card at ``given/mine``."""
    root = tmp_path_factory.mktemp("card")
    shutil.copytree(trained(), root / "project")
    evaluated = in_process(root / "project", "evaluate", "tiny")
    assert evaluated.returncode == 0, evaluated.stderr
    result = in_process(root / "project", "export", "runs/tiny", "--card", "../given/mine")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("../given/mine: tiny, accuracy ")
    return root


def test_the_folder_has_all_that_is_needed(project: Path) -> None:
    folder, run = project / "given/mine", project / "project/runs/tiny"
    assert contents(folder).keys() == FILES
    config = read_json(folder / "config.json")
    digests, metrics = read_json(run / "digests.json"), read_metrics(run / "metrics.json")
    assert config["library_version"] == __version__
    assert config["command"] == "steadyspike train tiny && steadyspike evaluate tiny"
    assert config["accuracy"] == metrics.accuracy.last
    assert config["parameters_sha256"] == digests["fingerprint"]
    assert config["weights_sha256"] == digests["weights_sha256"]
    assert config["dataset"] == digests["dataset"]
    assert config["experiment"]["training"]["epochs"] == 8
    for key, tensor in safetensors.torch.load_file(run / "model.safetensors").items():
        shared = safetensors.torch.load_file(folder / "model.safetensors")
        assert torch.equal(shared[key], tensor)


def test_the_head_of_the_card_is_hugging_faces_metadata(project: Path) -> None:
    _, head, text = (project / "given/mine/README.md").read_text().split("---\n", 2)
    metadata = yaml.safe_load(head)
    config = read_json(project / "given/mine/config.json")
    assert metadata["library_name"] == "steadyspike"
    assert metadata["license"] == "mit"
    assert metadata["datasets"] == ["zalando-datasets/fashion_mnist"]
    (index,) = metadata["model-index"]
    (result,) = index["results"]
    assert index["name"] == "tiny"
    assert result["dataset"]["type"] == "zalando-datasets/fashion_mnist"
    assert [(each["type"], each["value"]) for each in result["metrics"]] == [
        ("accuracy", config["accuracy"])
    ]
    for fact in (
        f"| Test accuracy | {config['accuracy']:.2f} % of 30 samples",
        "| Its licence | MIT |",
        f"| Command | `{config['command']}` |",
        config["parameters_sha256"],
        config["weights_sha256"],
    ):
        assert fact in text


@pytest.mark.parametrize("arguments", [(), ("--threshold=layer",), ("--batch=5",)])
def test_evaluate_reads_it_back(arguments: tuple[str, ...], project: Path) -> None:
    here = in_process(project / "project", "evaluate", "../given/mine", *arguments)
    assert here.returncode == 0, here.stderr
    own = ("--weights=runs/tiny/model.safetensors", *arguments)
    there = in_process(project / "project", "evaluate", "tiny", *own)
    assert here.stdout.split("; ")[0] == there.stdout.strip()
    accuracy = read_json(project / "given/mine/config.json")["accuracy"]
    assert here.stdout.endswith(f"; {accuracy:.2f} % where it was trained\n")
    if not arguments:
        assert here.stdout.startswith(f"accuracy {accuracy:.2f} %")


def test_predict_reads_it_back_where_there_is_no_data(project: Path, tmp_path: Path) -> None:
    from PIL import Image

    images: Any = data.load("embedded", project / "project").test
    Image.fromarray(images.images[0, 0].numpy()).save(tmp_path / "image.png")
    shutil.copytree(project / "given/mine", tmp_path / "net")
    shared = in_process(tmp_path, "predict", "net", "image.png", "--json")
    assert shared.returncode == 0, shared.stderr
    (run,) = (project / "project/runs/tiny",)
    assert shared.stdout == in_process(tmp_path, "predict", str(run), "image.png", "--json").stdout


def test_a_shared_network_can_be_exported(project: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.pt2"
    folder = str(project / "given/mine")
    result = in_process(tmp_path, "export", folder, "--threshold=layer", "--out", str(out))
    assert result.returncode == 0, result.stderr
    assert out.exists()


def test_every_data_set_has_a_title() -> None:
    assert PUBLISHED.keys() == set(data.NAMES)


def test_the_folder_of_ones_own_images_is_not_told(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "secret/mine").mkdir(parents=True)
    from PIL import Image

    for split in ("train", "test"):
        for label in ("a", "b"):
            folder = tmp_path / "secret/mine" / split / label
            folder.mkdir(parents=True)
            for shade in range(20):
                Image.new("L", (12, 12), 10 * shade + (label == "b")).save(folder / f"{shade}.png")
    dataset = {"dataset.name": "image_folder", "dataset.path": str(tmp_path / "secret/mine")}
    settings = {**dataset, "dataset.size": 12, "dataset.channels": 1, "training.epochs": 1}
    write_params(tmp_path, {"own": {}}, **settings)
    for arguments in (("train", "own"), ("evaluate", "own"), ("export", "own", "--card=shared")):
        result = in_process(tmp_path, *arguments)
        assert result.returncode == 0, result.stderr
    for name, content in contents(tmp_path / "shared").items():
        assert b"secret" not in content, name
    assert read_json(tmp_path / "shared/config.json")["experiment"]["dataset"]["path"] == "mine"


# Refused


def test_folders_and_runs_that_cannot_be_shared(project: Path, tmp_path: Path) -> None:
    root = shutil.copytree(project / "project", tmp_path / "project")

    def refuses(message: str, *arguments: str, run: str = "tiny") -> None:
        refused(in_process(root, "export", run, *arguments), message)

    refuses(r"given/mine: exists already", "--card", str(project / "given/mine"))
    refuses("--threshold: expected with --out", "--card=new", "--threshold=layer")
    params = yaml.safe_load((root / "params.yaml").read_text())
    params["experiments"]["chosen"] = {"dataset": {"validation": 5}}
    (root / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    shutil.copytree(root / "runs/tiny", root / "runs/chosen")
    refuses("runs/chosen: dataset.validation: measured on training", "--card=new", run="chosen")
    refuses("given/mine: has a card already", "--card=new", run=str(project / "given/mine"))
    change_json(root / "runs/tiny/metrics.json", lambda each: each["loss"].update(train=0.5))
    refuses(r"metrics\.json: of other weights .*`steadyspike evaluate tiny`", "--card=new")
    (root / "runs/tiny/metrics.json").unlink()
    refuses(r"metrics\.json: not found: measure it with `steadyspike evaluate tiny`", "--card=new")
    change_json(root / "runs/tiny/digests.json", lambda each: each.update(fingerprint="0" * 64))
    refuses("trained with other parameters", "--card=new")
    assert not (root / "new").exists()


def test_shared_folders_that_are_damaged(project: Path, tmp_path: Path) -> None:
    def refuses(message: str, name: str, change: Any) -> None:
        folder = shutil.copytree(project / "given/mine", tmp_path / "net", dirs_exist_ok=True)
        change(folder / name)
        result = in_process(project / "project", "evaluate", str(folder))
        refused(result, message)

    def other_weights(path: Path) -> None:
        state = safetensors.torch.load_file(path)
        safetensors.torch.save_file({key: tensor * 2 for key, tensor in state.items()}, path)

    refuses(r"model\.safetensors: not the weights that config\.json", *_at(other_weights))
    refuses(r"model\.safetensors: damaged safetensors", *_at(lambda path: path.write_text("{}")))
    refuses(r"model\.safetensors: not found: copy the whole folder", *_at(Path.unlink))
    cut = "config.json", lambda path: path.write_text(path.read_text()[:-9])
    refuses(r"config\.json: ", *cut)
    unknown = "config.json", lambda path: change_json(path, lambda c: c.pop("experiment"))
    refuses(r"config\.json: experiment: Field required", *unknown)
    elsewhere = "config.json", lambda path: change_json(path, _other_images)
    refuses(r"config\.json: dataset: trained on other images", *elsewhere)


def _at(change: Any) -> tuple[str, Any]:
    return "model.safetensors", change


def _other_images(config: Any) -> None:
    config["dataset"]["content_sha256"] = "0" * 64
