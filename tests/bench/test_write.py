"""The JSON file, and what is made of it."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bench.made_up import bench, measurement
from steadyspike.bench.records import Training, load, save
from steadyspike.bench.tables import comparison, groups, memory_curves
from steadyspike.bench.write import page, render
from steadyspike.errors import UserError

ROOT = Path(__file__).parents[2]


def cells(table: str) -> list[list[str]]:
    """The rows below the header."""
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    assert save(bench(), tmp_path) == tmp_path / "bench-cpu.json"
    assert load(tmp_path / "bench-cpu.json") == bench()
    assert load(tmp_path / "bench-cuda.json") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"speed": 3}, "speed: Extra inputs"),
        ({"date": None}, "date: Input should be a valid string"),
        ({"schema_version": 1}, "schema_version: Input should be 2"),
        ({"machine": {}}, "machine.device: Field required"),
        ({"measurements": [{"framework": "x", "setting": {"steps": "two"}}]}, "steps: Input"),
        (None, "the file: Invalid JSON"),
    ],
)
def test_another_file_is_refused(
    tmp_path: Path, change: dict[str, object] | None, expected: str
) -> None:
    path = save(bench(), tmp_path)
    text = path.read_text()
    path.write_text(text[:100] if change is None else json.dumps({**json.loads(text), **change}))
    with pytest.raises(UserError, match=f"^{path}: expected the JSON of .*{expected}"):
        load(path)


def test_a_comparison() -> None:
    (group,) = groups(bench())
    ours, fastest, plain, peer, missing = cells(comparison(group, group))
    assert ours == [
        "steadyspike (fused), K 1",
        "4.00",
        "2.00 to 8.00",
        "1.50 (1.00 to 2.00)",  # of the medians; of the turns, pair by pair
        "2.00 (1.11 to 2.00)",
        "100",
        "11.0",
        "as it is",
    ]
    assert fastest[1:4] == ["8.00", "8.00 to 8.00", "3.00 (2.00 to 4.00)"]
    assert fastest[4:7] == ["", "300", ""]  # not measured
    assert plain[0] == "steadyspike (plain torch), K 1"
    assert peer[3] == "1.00"
    assert missing[-1] == "failed: snntorch is not installed"
    assert "× SpikingJelly (BPTT)" in comparison(group, group)
    alone = [m for m in group if m.framework != "spikingjelly-bptt"]
    assert "× steadyspike (plain torch), K 1" in comparison(alone, alone)


def test_the_memory_curves_are_of_the_first_k() -> None:
    assert memory_curves(bench(), "peak_bytes") == {
        "steadyspike": {2: 90_000_000, 4: 100_000_000},  # not the 300 MB of K 4
        "spikingjelly-bptt": {2: 200_000_000, 4: 400_000_000},
    }


def test_the_page_says_where_what_differs_and_what_failed() -> None:
    text = page(bench())
    for line in (
        "A processor, 2 of 2 cores, AVX2, steadyspike 0.1.0, torch 2.15.0, 2026-01-02",
        "commit 0123456",
        "- SpikingJelly (BPTT): LIFNode in multi-step mode",
        "- SpikingJelly (BPTT), T 8: failed: RuntimeError: out of memory",
        "(float32, batch 8) spends 1.25 % of its time waiting for data; a batch takes",
    ):
        assert line in text
    assert "not idle" not in text
    busy = {**bench().machine.model_dump(), "load": 1.6}
    failed = measurement("steadyspike", [], failed="no | memory").model_dump()
    text = page(bench(machine=busy, measurements=[failed], waiting=None))
    assert "not idle before the run: load 1.6 on 2 cores" in text
    assert r"| failed: no \| memory" in text


def test_the_page_has_a_training_run() -> None:
    training = Training(
        dataset="fashion_mnist",
        setting=measurement("steadyspike", [], chunk=4).setting,
        minutes=9.54,
        epochs=12,
        accuracy=91.25,
        processor="A GPU",
        date="2026-01-02T03:04:05+00:00",
    )
    text = page(bench(training=training.model_dump()))
    assert "on A GPU: 12 epochs in 9.5 minutes, test accuracy 91.25 %, 2026-01-02." in text


def test_every_figure_is_well_formed_and_linked_and_always_the_same(tmp_path: Path) -> None:
    contents = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        save(bench(), folder)
        contents.append({path.name: path.read_text() for path in render(folder)})
    assert contents[0] == contents[1]
    written = contents[0]
    assert set(written) == {"bench-cpu.md", "bench-cpu-speed.svg", "bench-cpu-memory.svg"}
    for name in ("bench-cpu-speed.svg", "bench-cpu-memory.svg"):
        text = "".join(ElementTree.fromstring(written[name]).itertext())
        assert "steadyspike (fused)" in text
        assert "SpikingJelly (BPTT)" in text
        assert f"]({name})" in written["bench-cpu.md"]


def test_the_committed_pages_are_those_of_the_committed_measurements(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "docs").glob("bench-*.json"):
        shutil.copy(path, tmp_path / "docs")
    for path in render(tmp_path / "docs"):
        assert path.read_text() == (ROOT / path.relative_to(tmp_path)).read_text(), path.name
