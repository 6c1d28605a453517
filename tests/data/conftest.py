"""Small stand-ins for the data sets, and a web server for them."""

import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from steadyspike.data.fashion_mnist import FILES, write_idx
from steadyspike.data.manifest import file_sum, manifest_of_files, write_manifest

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
COUNTS = {"train": 40, "test": 20}


@pytest.fixture(scope="session")
def arrays() -> dict[str, NDArray[np.uint8]]:
    """The four arrays of a small Fashion-MNIST: random images, equally many of every label."""
    random = np.random.default_rng(0)
    made = {}
    for split, (images, labels) in FILES.items():
        count = COUNTS[split]
        made[images] = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[labels] = random.permutation(np.arange(count) % 10).astype(np.uint8)
    return made


@pytest.fixture
def embed() -> Callable[[Path, dict[str, NDArray[np.uint8]]], Path]:
    """Writes arrays as an embedded set with its manifest below a root, and returns its folder."""

    def embed(root: Path, arrays: dict[str, NDArray[np.uint8]]) -> Path:
        folder = root / "data"
        for name, array in arrays.items():
            write_idx(folder / f"{name}.gz", array)
        sums = {path.name: file_sum(path) for path in folder.glob("*.gz")}
        write_manifest(folder / "manifest.json", manifest_of_files(sums, name="embedded"))
        return folder

    return embed


@pytest.fixture
def debian() -> Path:
    if not DEBIAN.is_dir():
        pytest.skip("the full Fashion-MNIST is not installed")
    return DEBIAN


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder that a web server offers, and its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(QuietHandler, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()
        thread.join()
