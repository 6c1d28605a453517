import hashlib
import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.errors import UserError
from steadyspike.train.checkpoint import (
    FORMAT,
    parse_checkpoint,
    previous,
    save_checkpoint,
)
from tiny import saved_state, tiny_experiment
from trap import Trap

STATE: dict[str, Any] = {
    "weights": {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(-0.0)},
    "rows": [{"epoch": 1, "loss": 0.1}],
    "name": "ö",
    "none": None,
}
KEYS = st.sampled_from(["format", "experiment", "fingerprint", "state", "other"])


def same(a: Any, b: Any) -> bool:
    """Equal in values and types, tensors bit by bit."""
    if isinstance(a, torch.Tensor):
        return (
            isinstance(b, torch.Tensor)
            and a.dtype == b.dtype
            and a.shape == b.shape
            and a.numpy().tobytes() == b.numpy().tobytes()
        )
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and bool(a == b)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "checkpoint.pt"
    save_checkpoint(path, tiny_experiment(), STATE)
    return path


def test_the_saved_state_is_loaded(path: Path) -> None:
    assert list(path.parent.iterdir()) == [path]
    for changes in ({}, {"device": "cuda", "training.chunk": 1}):  # these may change
        assert same(saved_state(path, tiny_experiment(**changes)), STATE)
    assert saved_state(path.parent / "none.pt", tiny_experiment()) is None
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        saved_state(path.parent, tiny_experiment())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [1]}, r"seeds is \[1\] and was \[0\]"),
        (
            {"model.norm": "linear", "training.batch": 8},
            r"model\.norm is 'linear' and was 'osr', training\.batch is 8 and was 16",
        ),
        ({"name": "other"}, r"name is 'other' and was 'tiny'"),
    ],
)
def test_another_experiments_checkpoint_is_refused_with_the_differing_keys(
    path: Path, changes: dict[str, Any], message: str
) -> None:
    before = path.read_bytes()
    with pytest.raises(UserError, match=rf"checkpoint\.pt: .*: {message}$"):
        saved_state(path, tiny_experiment(**changes))
    assert path.read_bytes() == before


def test_every_truncation_and_every_flipped_bit_is_noticed(path: Path) -> None:
    """torch's own reader would resume from other weights without an error."""
    raw = path.read_bytes()
    damaged = [raw[:size] for size in {1, 31, 32, 33, len(raw) - 1, *range(0, len(raw), 97)}]
    for place in random.Random(0).sample(range(len(raw)), 200):
        altered = bytearray(raw)
        altered[place] ^= 1 << place % 8
        damaged.append(bytes(altered))
    for content in damaged:
        with pytest.raises(UserError, match="truncated or altered checkpoint"):
            parse_checkpoint(content, path, tiny_experiment())


def test_the_newest_two_are_kept(path: Path) -> None:
    newest, before = path, previous(path)
    first = newest.read_bytes()
    save_checkpoint(path, tiny_experiment(), {"number": 2})
    assert before.read_bytes() == first
    save_checkpoint(path, tiny_experiment(), {"number": 3})
    assert sorted(path.parent.iterdir()) == sorted([newest, before])
    assert saved_state(path, tiny_experiment()) == {"number": 3}
    assert saved_state(before, tiny_experiment()) == {"number": 2}


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "flipped"])
def test_a_damaged_one_gives_way_to_the_one_before(
    damage: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(path, tiny_experiment(), {"number": 2})
    raw = bytearray(path.read_bytes())
    raw[40] ^= 1
    if damage == "gone":  # killed between the two renames of a save
        path.unlink()
    else:
        path.write_bytes({"empty": b"", "half": raw[: len(raw) // 2], "flipped": raw}[damage])
    assert same(saved_state(path, tiny_experiment()), STATE)
    err = capsys.readouterr().err
    assert err == "" if damage == "gone" else "resuming from" in err
    if damage != "gone":
        previous(path).write_bytes(b"")
        with pytest.raises(UserError, match="truncated or altered"):
            saved_state(path, tiny_experiment())


def test_nothing_in_it_is_run(tmp_path: Path) -> None:
    """A checkpoint made to run a command when unpickled is refused, not run."""
    made, path = tmp_path / "made", tmp_path / "checkpoint.pt"
    save_checkpoint(path, tiny_experiment(), {"trap": Trap(made)})
    with pytest.raises(UserError, match=r"checkpoint\.pt: "):
        saved_state(path, tiny_experiment())
    assert not made.exists()


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)


def torch_file(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


BYTES = st.binary(max_size=60)


@given(
    BYTES
    | BYTES.map(lambda raw: b"PK\x03\x04" + raw)
    | PLAIN.map(torch_file)
    | st.dictionaries(KEYS, PLAIN).map(lambda entries: torch_file({"format": FORMAT, **entries}))
)
def test_other_content_with_the_right_sum_is_refused(raw: bytes) -> None:
    with pytest.raises(UserError, match=r"^c\.pt: "):
        parse_checkpoint(raw + hashlib.sha256(raw).digest(), Path("c.pt"), tiny_experiment())
