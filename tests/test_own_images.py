"""The commands on a folder of the user's own images."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steadyspike.evaluate.metrics import read_metrics
from tiny import REPOSITORY, in_process, read_json, refused, write_params

COLOURS = {"blue": (40, 60, 220), "green": (60, 200, 60), "red": (220, 60, 40)}


def lay_images(folder: Path, train: int = 12, test: int = 5) -> None:
    """Noisy images of three colours and many sizes, PNG and JPEG."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for place in range(count):
                height, width = random.integers(20, 60, 2)
                pixels = random.normal(colour, 30, (height, width, 3)).clip(0, 255).astype(np.uint8)
                form = "png" if place % 2 else "jpg"
                Image.fromarray(pixels).save(folder / split / name / f"{place}.{form}")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Own images, trained and evaluated; a test batch is larger than the test split."""
    root = tmp_path_factory.mktemp("own")
    lay_images(root / "pictures")
    own = {"dataset.name": "image_folder", "dataset.path": "pictures", "dataset.size": 10}
    more = {"training.epochs": 4, "evaluation.batch": 100}
    write_params(root, {"mine": {}, "grey": {"dataset.channels": 1}}, **own, **more)
    for command in ("train", "evaluate"):
        done = in_process(root, command, "mine")
        assert done.returncode == 0, done.stderr
    return root


def test_training_and_evaluation(project: Path) -> None:
    metrics = read_metrics(project / "runs/mine/metrics.json")
    assert metrics.accuracy.last > 60  # chance is 33
    known = read_json(project / "runs/mine/digests.json")["dataset"]
    assert known["classes"] == ["blue", "green", "red"]
    assert known["shape"] == [3, 10, 10]


def test_fetch_checks_the_folder_that_the_experiments_name(project: Path, tmp_path: Path) -> None:
    done = in_process(project, "fetch", "image_folder", "--manifest", str(tmp_path / "copy.json"))
    assert done.stdout == "image_folder: checked (pictures.manifest.json)\n"
    assert read_json(tmp_path / "copy.json") == read_json(project / "pictures.manifest.json")
    write_params(tmp_path, {"a": {}})
    failed = in_process(tmp_path, "fetch", "image_folder")
    refused(
        failed, r"params\.yaml: dataset\.path: expected one of image_folder in all .* found none"
    )
    own = {"dataset.name": "image_folder", "dataset.path": "gone", "dataset.size": 10}
    write_params(tmp_path, {"a": own})
    refused(
        in_process(tmp_path, "fetch", "image_folder"), r"gone: no such folder \(dataset\.path\)"
    )
    write_params(tmp_path, {"a": own, "b": own | {"dataset.path": "other"}})
    refused(in_process(tmp_path, "fetch", "image_folder"), "found gone, other")


def test_the_commands_of_the_documentation(tmp_path: Path) -> None:
    page = (REPOSITORY / "docs" / "your-own-images.md").read_text()
    block = re.search(r"```sh\n(.*?)```", page, re.DOTALL)
    assert block is not None
    lines = [shlex.split(line, comments=True) for line in block[1].splitlines()]
    commands = [words for words in lines if words]
    assert [words[1] for words in commands] == ["fetch", "train", "evaluate", "predict"]
    (tmp_path / "pipelines").mkdir()
    shutil.copytree(
        REPOSITORY / "pipelines" / "own_images",
        tmp_path / "pipelines" / "own_images",
        ignore=shutil.ignore_patterns("runs", "reports"),
    )
    lay_images(tmp_path / "datasets" / "own_images")
    image = tmp_path / commands[-1][-1]
    shutil.copy(tmp_path / "datasets/own_images/test/red/0.jpg", image)
    for program, *arguments in commands:
        assert program == "steadyspike"
        done = in_process(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "pipelines/own_images/runs/osr_ots/metrics.json")
    assert metrics.accuracy.last > 60  # chance is 33
    assert done.stdout.startswith(f"{image.name}: red\n")
    # The page shows what the command prints, but for the numbers.
    shown = re.search(r"```text\n(.*?)```", page, re.DOTALL)
    assert shown is not None
    printed, known = (re.sub(r"[\d.,]+", "0", out).splitlines() for out in (done.stdout, shown[1]))
    assert len(printed) == len(known)
    assert printed[-1] == known[-1]
