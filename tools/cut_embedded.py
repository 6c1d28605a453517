"""Cuts the embedded data set from the full Fashion-MNIST.

    python tools/cut_embedded.py FULL_FOLDER OUT_FOLDER

FULL_FOLDER holds the four original files, gzip or plain. Of each class the first 600 training
and 100 test images are kept, in the files' order, and written under the original names, beside
the licence and a manifest.

The uncompressed content is always the same, which this tool checks. The committed files were
compressed by zlib 1.2.13 at level 9; another implementation, such as zlib-ng, may compress the
same content to other bytes, which load equally well but differ in DVC's hash.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from steadyspike.data.fashion_mnist import CLASSES, FILES, compress, encode_idx, read_full
from steadyspike.data.manifest import FileSum, bytes_sum, manifest_of_files, write_manifest
from steadyspike.errors import UserError
from steadyspike.files import write_atomically

PER_CLASS = {"train": 600, "test": 100}
CONTENTS = {  # SHA-256 of each uncompressed file
    "train-images-idx3-ubyte": "cf313073c7eb485392848071d5c433571d7166043e971e3345b095cc30518084",
    "train-labels-idx1-ubyte": "097b93fbcf9bd5bc648b1a457ddc55c9e4ab49afb33f9ecae8ce068399a75e3a",
    "t10k-images-idx3-ubyte": "7cee33c3c6414b1b86c25e665a6c4f41584269de3b7cc9768b1d351922845eef",
    "t10k-labels-idx1-ubyte": "3128d790775889812b73c4f13923559c8b9e281d112c6ea7862acf60a206a909",
}
LICENSE = """\
The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of
this software and associated documentation files (the "Software"), to deal in
the Software without restriction, including without limitation the rights to
use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of
the Software, and to permit persons to whom the Software is furnished to do so,
subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS
FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER
IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def first_of_each_class(labels: NDArray[np.uint8], count: int) -> NDArray[np.intp]:
    """The positions of the first ``count`` samples of each class, ascending."""
    kept = [np.flatnonzero(labels == label)[:count] for label in range(len(CLASSES))]
    return np.sort(np.concatenate(kept))


def cut(full: Path, out: Path) -> None:
    """Writes the embedded set. Raises UserError unless its content is the known one."""
    arrays = read_full(full)
    files = {"LICENSE": LICENSE.encode()}
    contents: dict[str, FileSum] = {}
    for split, (images, labels) in FILES.items():
        kept = first_of_each_class(arrays[labels], PER_CLASS[split])
        for name in (images, labels):
            content = encode_idx(arrays[name][kept])
            files[f"{name}.gz"] = compress(content)
            contents[name] = bytes_sum(content)
            if contents[name].sha256 != CONTENTS[name]:
                raise UserError(f"{out / name}: expected content of SHA-256 {CONTENTS[name]}")
    for name, raw in files.items():
        write_atomically(out / name, raw)
    manifest = manifest_of_files(
        {name: bytes_sum(raw) for name, raw in files.items()},
        name="embedded",
        contents={name: asdict(known) for name, known in contents.items()},
        counts={split: count * len(CLASSES) for split, count in PER_CLASS.items()},
    )
    write_manifest(out / "manifest.json", manifest)


def main() -> int:
    if len(sys.argv) != 3:
        print("usage: python tools/cut_embedded.py FULL_FOLDER OUT_FOLDER", file=sys.stderr)
        return 2
    try:
        cut(Path(sys.argv[1]), Path(sys.argv[2]))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
