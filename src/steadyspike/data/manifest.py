"""Checksums, and manifests: JSON files with the SHA-256 and size of each file of a data set."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from steadyspike.errors import UserError
from steadyspike.files import is_stray, reading, write_atomically

MANIFEST = "manifest.json"  # of a folder


@dataclass(frozen=True)
class FileSum:
    """SHA-256 (hexadecimal) and size in bytes of a file, or of a compressed file's content."""

    sha256: str
    size: int


def file_sum(path: Path) -> FileSum:
    """SHA-256 and size of a file. Raises UserError if it cannot be read."""
    with reading(path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return FileSum(digest.hexdigest(), file.tell())


def bytes_sum(content: bytes) -> FileSum:
    """SHA-256 and size of bytes in memory."""
    return FileSum(hashlib.sha256(content).hexdigest(), len(content))


def check_sum(path: Path, actual: FileSum, expected: FileSum, remedy: str) -> None:
    """Raises UserError with file, difference and remedy unless the sums are equal."""
    if actual.size != expected.size:
        what = "truncated" if actual.size < expected.size else "altered"
        raise UserError(
            f"{path}: {what}; expected {expected.size} bytes, found {actual.size}; {remedy}"
        )
    if actual.sha256 != expected.sha256:
        raise UserError(
            f"{path}: altered; expected SHA-256 {expected.sha256}, found {actual.sha256}; {remedy}"
        )


def check_md5(path: Path, md5: str, remedy: str) -> None:
    """Raises UserError unless a file has this MD5, for files with no published SHA-256."""
    with reading(path), path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    if found.hexdigest() != md5:
        raise UserError(
            f"{path}: truncated or altered; expected MD5 {md5}, found {found.hexdigest()}; {remedy}"
        )


def manifest_of_files(files: Mapping[str, FileSum], **facts: Any) -> dict[str, Any]:
    """A manifest of files' sums and other ``facts`` (name, counts), as JSON would give it back."""
    return {**facts, "files": {name: asdict(known) for name, known in files.items()}}


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Writes a manifest atomically; the same manifest always gives the same bytes."""
    write_atomically(path, json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def read_manifest(path: Path, remedy: str) -> dict[str, Any]:
    """Reads a manifest. Raises UserError that names the file, the damaged key and the remedy."""
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path}: missing; {remedy}") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path}: altered; expected JSON; {remedy}") from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise UserError(f"{path}: altered; expected a table under the key files; {remedy}")
    for name, entry in manifest["files"].items():
        if (
            not isinstance(entry, dict)
            or not isinstance(entry.get("sha256"), str)
            or not isinstance(entry.get("size"), int)
        ):
            raise UserError(f"{path}: files: {name}: expected sha256 and size; {remedy}")
    return manifest


def verify_folder(folder: Path, remedy: str) -> dict[str, Any]:
    """Checks every file that ``manifest.json`` in a folder lists and returns the manifest.

    ``remedy`` ends each message, such as "get it with `dvc pull data.dvc`". Raises UserError for
    a missing folder or file, a wrong size and a wrong hash, and for a file that is not listed and
    not a stray one of the operating system.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {remedy}")
    known = read_manifest(folder / MANIFEST, remedy)
    for name, entry in known["files"].items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: missing; {remedy}")
        check_sum(path, file_sum(path), FileSum(entry["sha256"], entry["size"]), remedy)
    for path in sorted(folder.iterdir()):
        if path.name not in known["files"] and path.name != MANIFEST and not is_stray(path.name):
            raise UserError(f"{path}: not part of the data set; move it elsewhere")
    return known
