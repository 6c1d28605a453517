import hashlib
import json
from pathlib import Path

import pytest

from steadyspike.data.manifest import (
    FileSum,
    bytes_sum,
    check_md5,
    file_sum,
    manifest_of_files,
    verify_folder,
    write_manifest,
)
from steadyspike.errors import UserError

REMEDY = "get it with `dvc pull data.dvc`"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "b").write_bytes(b"some bytes")
    (folder / "a").write_bytes(b"")
    sums = {name: file_sum(folder / name) for name in ("b", "a")}
    write_manifest(folder / "manifest.json", manifest_of_files(sums, name="set"))
    return folder


def test_a_manifest_is_sorted_json(folder: Path) -> None:
    known = {
        "files": {
            "a": {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0},
            "b": {"sha256": hashlib.sha256(b"some bytes").hexdigest(), "size": 10},
        },
        "name": "set",
    }
    assert (folder / "manifest.json").read_text() == json.dumps(known, indent=2) + "\n"
    assert verify_folder(folder, REMEDY) == known


def test_sums_of_files_and_bytes_agree(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    (tmp_path / "f").write_bytes(content)
    expected = FileSum(hashlib.sha256(content).hexdigest(), 1_280_000)
    assert file_sum(tmp_path / "f") == bytes_sum(content) == expected


def test_the_md5_of_a_file_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"some bytes")
    md5 = hashlib.md5(b"some bytes").hexdigest()
    check_md5(path, md5, "get it again")
    with pytest.raises(UserError, match=rf"f: truncated or altered; .* found {md5}; get it again"):
        check_md5(path, "0" * 32, "get it again")
    with pytest.raises(UserError, match=r"gone: cannot be read"):
        check_md5(tmp_path / "gone", md5, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "b: missing"),
        (b"some byte", "b: truncated; expected 10 bytes, found 9"),
        (b"some bytes.", "b: altered; expected 10 bytes, found 11"),
        (b"same bytes", "b: altered; expected SHA-256"),
    ],
)
def test_each_damage_is_named_with_its_remedy(
    folder: Path, content: bytes | None, message: str
) -> None:
    if content is None:
        (folder / "b").unlink()
    else:
        (folder / "b").write_bytes(content)
    with pytest.raises(UserError, match=f"set/{message}.*; get it with `dvc pull data.dvc`$"):
        verify_folder(folder, REMEDY)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: no such folder; get it with `dvc pull data\.dvc`"):
        verify_folder(tmp_path / "gone", REMEDY)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ("{", "expected JSON"),
        (b"\xff", "expected JSON"),
        ("[]", "under the key files"),
        ('{"files": []}', "under the key files"),
        ('{"files": {"b": {"sha256": "0"}}}', "files: b: expected sha256 and size"),
        (None, "missing"),
    ],
)
def test_a_broken_manifest_is_refused(
    folder: Path, manifest: str | bytes | None, message: str
) -> None:
    path = folder / "manifest.json"
    path.unlink()
    if manifest is not None:
        path.write_bytes(manifest.encode() if isinstance(manifest, str) else manifest)
    with pytest.raises(UserError, match=rf"manifest\.json: .*{message}.*dvc pull") as caught:
        verify_folder(folder, REMEDY)
    assert "\n" not in str(caught.value)
