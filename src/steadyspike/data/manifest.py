"""A manifest names the SHA-256 and size of each file of a data set, and whatever else is known."""

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steadyspike.errors import UserError
from steadyspike.files import read_at_most, write_atomically

LARGEST = 1 << 22  # bytes: a thousand times what any has
LONGEST_NAME = 255  # bytes, of a file system's


@dataclass(frozen=True)
class FileSum:
    """SHA-256 (hexadecimal) and size in bytes, of a file or of what a compressed file holds."""

    sha256: str
    size: int


def file_sum(path: Path) -> FileSum:
    """The sum of a file as it lies on the disk. Raises UserError where it cannot be read."""
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            return FileSum(digest.hexdigest(), file.tell())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def bytes_sum(content: bytes) -> FileSum:
    """The sum of bytes in memory."""
    return FileSum(hashlib.sha256(content).hexdigest(), len(content))


def check_sum(path: Path, actual: FileSum, expected: FileSum, remedy: str) -> None:
    """Raises UserError that names the file, what is wrong with it and the remedy."""
    if actual.size != expected.size:
        what = "truncated" if actual.size < expected.size else "altered"
        raise UserError(
            f"{path}: {what}; expected {expected.size} bytes, found {actual.size}; {remedy}"
        )
    if actual.sha256 != expected.sha256:
        raise UserError(
            f"{path}: altered; expected SHA-256 {expected.sha256}, found {actual.sha256}; {remedy}"
        )


def manifest_of_files(files: Mapping[str, FileSum], **facts: Any) -> dict[str, Any]:
    """A manifest as JSON would give it back: ``facts`` (name, counts) beside the files' sums."""
    return {**facts, "files": {name: asdict(known) for name, known in files.items()}}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a manifest atomically, keys sorted, a newline at the end: the same bytes always."""
    write_atomically(path, json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def read_manifest(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a manifest and checks its form. Raises UserError that names file, key and remedy."""
    try:
        manifest = json.loads(read_at_most(path, LARGEST).decode())
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: altered; expected JSON; {remedy}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UserError(f"{path}: altered; expected a table under the key files; {remedy}")
    for name, entry in manifest["files"].items():
        if not _is_plain_name(name):
            shown = reprlib.repr(name)
            raise UserError(f"{path}: files: {shown} is not the plain name of a file; {remedy}")
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("sha256"), str)
            or type(entry.get("size")) is not int
        ):
            raise UserError(f"{path}: files: {name}: expected sha256 and size; {remedy}")
    return manifest


def _is_plain_name(name: str) -> bool:
    plain = Path(name).name == name and name not in ("", ".", "..") and name.isprintable()
    return plain and len(name.encode()) <= LONGEST_NAME


def verify_folder(folder: Path, remedy: str, manifest: str = "manifest.json") -> dict[str, Any]:
    """Checks every file that a folder's manifest names and returns the manifest.

    ``remedy`` ends each message, such as "get it with `dvc pull data.dvc`". Raises UserError for
    a missing folder or file, a wrong size and a wrong hash.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {remedy}")
    known = read_manifest(folder / manifest, remedy)
    for name, entry in known["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing; {remedy}")
        check_sum(path, file_sum(path), FileSum(entry["sha256"], entry["size"]), remedy)
    return known
