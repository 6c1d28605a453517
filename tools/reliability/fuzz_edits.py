"""Inputs that get past sums and syntax, so that what lies behind is fuzzed too."""

import copy
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

#: Begins an input that is a list of edits of a valid file; every other one is a file itself.
EDITS = 0
MOST_EDITS = 8
#: What stands for a number of more digits than Python reads.
_LONG = "a number of 5000 digits"
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 2**31, 2**63, 2**64, 10**300, -0.0, 0.5, 100.0, 100.5),
    *(1e308, -1e308, 5e-324, float("nan"), float("inf"), _LONG, "", "a", "a\nb", "\0", "\ud800"),
    *("\u202e", "<b>", "9" * 70, "a" * 3000, "0" * 64, [], {}, [[]], [0], [""], {"": 0}),
    *({"a\n": []}, [1e308] * 3, ["0" * 64] * 2, [[0] * 3] * 3),
)


def edited_json(valid: bytes, edits: bytes) -> bytes:
    """The document edited as `edited` does."""
    text = json.dumps(edited(json.loads(valid), edits), ensure_ascii=bool(len(edits) % 2))
    return text.replace(f'"{_LONG}"', "1" * 5000).encode("utf-8", "surrogatepass")


def edited(tree: Any, edits: bytes) -> Any:
    """A tree with values replaced, removed or put in once more, in place: three bytes an edit."""
    document = [tree]
    for at in range(0, min(len(edits), 3 * MOST_EDITS) - 2, 3):
        place, kind, value = edits[at : at + 3]
        places = [found for found in _places(document) if found[0] is not document]
        if not places:
            break
        holder, key = places[place * 7 % len(places)]
        if kind < 160:
            holder[key] = copy.deepcopy(ODD[value % len(ODD)])
        elif kind < 200:
            del holder[key]
        elif isinstance(holder, list):
            holder.extend(copy.deepcopy([holder[key]]) * (value % 5 if len(holder) < 20 else 0))
        else:
            holder[f"{key}{ODD[value % len(ODD)]}"] = copy.deepcopy(holder[key])
    return document[0]


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    for key in keys:
        yield holder, key
        if isinstance(holder[key], dict | list):
            yield from _places(holder[key])


def edited_csv(valid: bytes, edits: bytes) -> bytes:
    """The table with cells replaced, removed or put in once more: three bytes an edit."""
    rows = [line.split(",") for line in valid.decode().splitlines()]
    for at in range(0, min(len(edits), 3 * MOST_EDITS) - 2, 3):
        place, kind, value = edits[at : at + 3]
        cells = [(row, column) for row in rows for column in range(len(row))]
        if not cells:
            break
        row, column = cells[place % len(cells)]
        if kind < 160:
            row[column] = str(ODD[value % len(ODD)])
        elif kind < 200:
            del row[column]
        elif kind < 230:
            row.insert(column, row[column])
        else:
            rows.append(list(row))
    return "\n".join(map(",".join, rows)).encode("utf-8", "surrogatepass")


def with_tar_sums(content: bytes) -> bytes:
    """The sum of every block that looks like a tar header put right."""
    blocks = bytearray(content)
    size = tarfile.BLOCKSIZE
    for start in range(0, len(blocks) - size + 1, size):
        if blocks[start + 257 : start + 262] == b"ustar":
            blocks[start + 148 : start + 156] = b" " * 8
            blocks[start + 148 : start + 156] = b"%06o\0 " % sum(blocks[start : start + size])
    return bytes(blocks)


def checkpoint_of(pickled: bytes, storages: Mapping[str, bytes]) -> bytes:
    """The zip file that PyTorch writes, around any bytes for a pickle."""
    out = io.BytesIO()
    members = {
        "data.pkl": pickled,
        "byteorder": b"little",
        **{f"data/{key}": content for key, content in storages.items()},
        "version": b"3\n",
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"c/{name}"), content)
    return out.getvalue()


def pickle_of(checkpoint: bytes) -> tuple[bytes, dict[str, bytes]]:
    """The pickle and the storages in a PyTorch file."""
    with zipfile.ZipFile(io.BytesIO(checkpoint)) as archive:
        members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    storages = {
        name.removeprefix("data/"): content
        for name, content in members.items()
        if name.startswith("data/")
    }
    return members["data.pkl"], storages
