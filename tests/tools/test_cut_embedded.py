import subprocess
import sys
import zlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from steadyspike.errors import UserError
from tiny import REPOSITORY, contents, environment, load_tool

TOOL = REPOSITORY / "tools" / "cut_embedded.py"


@pytest.fixture
def debian() -> Path:
    folder = Path("/usr/share/datasets/fashion-mnist")  # of Debian's dataset-fashion-mnist
    if not folder.is_dir():
        pytest.skip("the full Fashion-MNIST is not installed")
    return folder


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    return load_tool("cut_embedded")


def test_keeps_the_first_of_each_class_in_file_order(tool: ModuleType) -> None:
    labels = np.array([*range(10), 3, 3, *range(10)], dtype=np.uint8)
    assert tool.first_of_each_class(labels, 1).tolist() == list(range(10))
    kept = tool.first_of_each_class(labels, 2).tolist()
    assert kept == [*range(11), 12, 13, 14, *range(16, 22)]


def test_reproduces_the_committed_files_byte_for_byte(
    tool: ModuleType, tmp_path: Path, debian: Path
) -> None:
    if not (REPOSITORY / "data").is_dir():
        pytest.skip("needs `dvc pull data.dvc`")
    tool.cut(debian, tmp_path)
    if zlib.ZLIB_RUNTIME_VERSION != "1.2.13":
        pytest.skip("another zlib may compress to other bytes; the content was checked")
    assert contents(tmp_path) == contents(REPOSITORY / "data")


def test_other_content_is_refused(
    tool: ModuleType, tmp_path: Path, debian: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tool.PER_CLASS, "train", 599)
    with pytest.raises(UserError, match="train-images-idx3-ubyte: expected content of SHA-256"):
        tool.cut(debian, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_missing_folder_is_one_line_and_writes_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), str(tmp_path / "gone"), str(tmp_path / "out")],
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "gone: no such folder" in line
    assert list(tmp_path.iterdir()) == []
