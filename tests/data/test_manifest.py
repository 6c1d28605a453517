import hashlib
import json
from pathlib import Path

import pytest

from steadyspike.data.manifest import (
    check_md5,
    file_sum,
    manifest_of_files,
    verify_folder,
    write_manifest,
)
from steadyspike.errors import UserError
from tiny import one_line

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
    ("name", "content", "message"),
    [
        ("b", None, "b: missing"),
        ("b", b"some byte", "b: truncated; expected 10 bytes, found 9"),
        ("b", b"some bytes.", "b: altered; expected 10 bytes, found 11"),
        ("b", b"same bytes", "b: altered; expected SHA-256"),
        ("manifest.json", None, "manifest.json: missing"),
        ("manifest.json", b"{", "manifest.json: altered; expected JSON"),
        ("manifest.json", b"\xff", "manifest.json: altered; expected JSON"),
        ("manifest.json", b"[]", "expected a table under the key files"),
        ("manifest.json", b'{"files": []}', "expected a table under the key files"),
        (
            "manifest.json",
            b'{"files": {"b": {"sha256": "0"}}}',
            "manifest.json: files: b: expected sha256 and size",
        ),
    ],
)
def test_each_damage_is_named_with_its_remedy(
    folder: Path, name: str, content: bytes | None, message: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(UserError) as caught:
        verify_folder(folder, REMEDY)
    assert one_line(caught.value, message).endswith(REMEDY)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone: no such folder; get it with `dvc pull data\.dvc`"):
        verify_folder(tmp_path / "gone", REMEDY)


def test_files_that_are_not_listed_are_named_unless_stray(folder: Path) -> None:
    for name in (".DS_Store", "._b", "Thumbs.db", "b~"):
        (folder / name).touch()
    verify_folder(folder, REMEDY)
    (folder / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt: not part of the data set"):
        verify_folder(folder, REMEDY)
