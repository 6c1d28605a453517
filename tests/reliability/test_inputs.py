"""A sample of the fuzzing and of the attacks, and what fuzzing has found, again."""

import contextlib
import importlib.util
import io
import json
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzz_checkpoint
import hostile
import hostile_archives
import hostile_code
import hostile_downloads
import hostile_sizes
import inputs
import pytest
import torch
from formats import tar_of, zip_of
from fuzz_edits import checkpoint_of, edited_csv, edited_json, with_tar_sums
from fuzz_seeds import history, manifest, membranes, memory
from fuzz_targets import TARGETS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from steadyspike.errors import UserError

few = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture
def attempt(target: str, tmp_path: Path) -> Callable[[bytes], object]:
    return TARGETS[target].prepare(tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_a_seed_is_read_or_is_there_to_be_changed(
    target: str, attempt: Callable[[bytes], object]
) -> None:
    read = 0
    for seed in TARGETS[target].seeds():
        assert len(seed) <= TARGETS[target].longest, "it would be cut"
        with contextlib.suppress(UserError):
            attempt(seed)
            read += 1
    assert read > 0


@pytest.mark.parametrize("target", TARGETS)
@few
@given(data=st.data())
def test_any_bytes_are_read_or_refused_in_words(
    target: str, attempt: Callable[[bytes], object], data: st.DataObject
) -> None:
    seed = data.draw(st.sampled_from(TARGETS[target].seeds()))
    places = st.integers(0, len(seed) - 1)
    changes = data.draw(st.lists(st.tuples(places, places, st.binary(max_size=4)), max_size=3))
    content = bytearray(seed)
    for start, end, put in changes:
        content[start : min(end, start + 8)] = put
    with contextlib.suppress(UserError):
        attempt(bytes(content))


FOUND = {
    "a zip member without a name": ("zip", zip_of({"": b"1"})),
    "a zip member in LZMA, cut": ("zip", zip_of({"a": b"abc"}, 14).replace(b"]\0", b"\xff\xff", 1)),
    "a .npy header that ends in a bracket": (
        "clips",
        b"\x93NUMPY\1\0\x10\0{'descr': ('<u1'\n",
    ),
    "a number of 5000 digits in JSON": ("digests", b'{"batches": %s}' % (b"1" * 5000)),
    "a long name in a manifest": (
        "manifest",
        json.dumps({"files": {"a" * 300: {"sha256": "", "size": 0}}}).encode(),
    ),
    "a size in a shard of more than 63 bits": (
        "shard",
        tar_of({"a.cls": b"1"})[:124] + b"\xff" + bytes(11) + tar_of({"a.cls": b"1"})[136:],
    ),
    "a number of more than 64 bits in CSV": ("memory", memory()[0] + b"bptt,%s,1\n" % (b"9" * 70)),
    "a CSV cell of 200,000 letters": ("history", history()[0] + b"a" * 200_000),
    "a thousand tar headers for one": (
        "tar",
        hostile_archives._header("x", b"x", 0) * 2000,
    ),
    "a name of no character in JSON": (
        "digests",
        b'{"batches": {"\\ud800": {}}, "fingerprint": "", "provenance": {}}',
    ),
}


@pytest.mark.parametrize(("target", "content"), FOUND.values(), ids=FOUND)
def test_what_was_found_is_refused_in_words(
    target: str, content: bytes, attempt: Callable[[bytes], object]
) -> None:
    if target == "history":  # whose attempt passes refusals over
        attempt(content)
        return
    with pytest.raises(UserError):
        attempt(content)


def _of_trainer(**state: Any) -> dict[str, Any]:
    return {"state": {**fuzz_checkpoint.content()["state"], **state}}


def _of_another(**experiment: Any) -> dict[str, Any]:
    return {"fingerprint": "", "experiment": experiment}


FOUND_IN_CHECKPOINTS = {
    "a format that is several numbers": lambda: {"format": torch.ones(2)},
    "an experiment of numbers and names": lambda: {
        **_of_another(),
        "experiment": {1: 2, "training.epochs": 3},
    },
    "an experiment of tensors": lambda: _of_another(**{"training.epochs": torch.ones(2)}),
    "a key of two lines": lambda: _of_another(**{"training\nepochs": 1}),
    "a value of a million letters": lambda: _of_another(**{"training.epochs": "x" * 10**6}),
    "no batch": lambda: {"state": {"epoch": 1}},
    "an epoch in words": lambda: _of_trainer(epoch="one"),
    "an epoch of two numbers": lambda: _of_trainer(epoch=torch.ones(2)),
    "an epoch after the last, which training would never reach": lambda: _of_trainer(epoch=10**9),
    "a batch after the last": lambda: _of_trainer(batch=7),
    "a loss of 65 bits": lambda: _of_trainer(losses=2**64),
    "an optimizer that is a number": lambda: _of_trainer(optimizer=0.5),
    "best weights of no network": lambda: _of_trainer(best={"weight": torch.ones(1)}),
    "digests that are no words": lambda: _of_trainer(digests={"1": {"weight": 5}}),
    "code that is a tensor": lambda: _of_trainer(code=torch.ones(2)),
    "a tensor larger than its bytes": lambda: _of_trainer(losses=torch.ones(1).expand(10**12)),
}


@pytest.mark.parametrize("change", FOUND_IN_CHECKPOINTS.values(), ids=FOUND_IN_CHECKPOINTS)
def test_what_was_found_in_checkpoints_is_refused_in_a_line(
    change: Callable[[], dict[str, Any]], tmp_path: Path
) -> None:
    resume = fuzz_checkpoint.resume(tmp_path)
    with pytest.raises(UserError) as told:
        resume(fuzz_checkpoint.saved({**fuzz_checkpoint.content(), **change()}))
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 2000


@pytest.mark.parametrize("attacks", [hostile_archives, hostile_code, hostile_downloads])
def test_every_attack_is_refused(
    attacks: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile_archives, "BOMB", 4 << 20)
    monkeypatch.setenv("no_proxy", "*")
    inside = tmp_path / "inside"
    inside.mkdir()
    for name, attempt in attacks.attacks(inside):  # type: ignore[attr-defined]
        print(name)
        with pytest.raises(UserError):
            attempt()
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert not any(inside.rglob(hostile.SPRUNG))


def test_no_size_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostile_sizes, "MANY", 1 << 27)
    monkeypatch.setattr(hostile_sizes, "SIDES", (13_000,))
    for name, attempt in hostile_sizes.attacks(tmp_path):
        if not any(slow in name for slow in ("unpacks", "64 MiB", "terabytes")):
            print(name)
            with pytest.raises(UserError):
                attempt()


def test_an_attack_that_works_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "attacks_that_work.py").write_text(
        "def attacks(inside):\n"
        "    yield 'one', lambda: None\n"
        "    yield 'two', lambda: (inside.parent / 'victim').write_text('hit')\n"
        "    yield 'three', lambda: (inside / 'out').mkdir() or (inside / 'out' / 'a').touch()\n"
        "    yield 'four', lambda: 1 / 0\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "work").mkdir()
    hostile.main("attacks_that_work", tmp_path / "work")
    one, two, three, four = capsys.readouterr().out.splitlines()
    assert one == "one\tnot refused"
    assert "something was written outside" in two
    assert "something was left" in three
    assert "ended in ZeroDivisionError" in four


def test_edits_are_of_a_document_that_is_read() -> None:
    numbers = random.Random(1)
    kept = 0
    for _ in range(200):
        content = edited_json(membranes()[0], numbers.randbytes(9))
        with contextlib.suppress(ValueError):
            kept += json.loads(content) != json.loads(membranes()[0])
    assert kept > 150
    assert edited_json(manifest()[0], b"") == json.dumps(json.loads(manifest()[0])).encode()
    assert edited_csv(memory()[0], b"\0\0\0").startswith(b"None,steps,bytes\n")


def test_a_damaged_header_of_a_tar_file_gets_its_sum_right() -> None:
    damaged = bytearray(tar_of({"a": b"1"}))
    damaged[0] = ord("b")
    assert not tarfile.is_tarfile(io.BytesIO(damaged))
    with tarfile.open(fileobj=io.BytesIO(with_tar_sums(bytes(damaged)))) as archive:
        assert archive.getnames() == ["b"]


def test_a_checkpoint_around_a_pickle_is_read_as_torch_writes_it(tmp_path: Path) -> None:
    (tmp_path / "c.pth").write_bytes(checkpoint_of(b"\x80\x02}.", {"0": b"1234"}))
    assert torch.load(tmp_path / "c.pth", weights_only=True) == {}


def test_fuzzing_counts_what_it_did_or_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "GROUPS", {})
    if importlib.util.find_spec("atheris") is None:
        (row,) = inputs.measure(tmp_path, few=True)
        assert not row.holds
        assert "requirements-fuzz.lock" in capsys.readouterr().err
        return
    outcome = inputs.fuzzed("memory", tmp_path / "memory", 300)
    assert (outcome.executions, outcome.crashes, outcome.hangs) == (300, 0, 0)
    assert 50 < outcome.peak < inputs.MEMORY


def test_a_row_fails_by_what_was_found() -> None:
    whole = inputs.Outcome(executions=1000, crashes=0, hangs=0, peak=500)
    assert inputs._row("x", [whole], 1000).holds
    for change in ({"crashes": 1}, {"hangs": 1}, {"peak": 1025}, {"executions": 999}):
        other = inputs.Outcome(**{**vars(whole), **change})
        assert not inputs._row("x", [other], 1000).holds


def test_a_million_executions_in_all() -> None:
    assert sum(target.executions for target in TARGETS.values()) == 1_000_000
