import json
from pathlib import Path

import pytest
from bench_samples import bench

from steadyspike.bench.records import file_of, read_bench
from steadyspike.bench.write import save
from steadyspike.errors import UserError


def test_a_file_holds_every_raw_sample_and_comes_back_the_same(tmp_path: Path) -> None:
    path = save(bench(), tmp_path)
    assert path == file_of(tmp_path, "cpu")
    assert read_bench(path) == bench()
    content = json.loads(path.read_text())
    assert content["schema_version"] == 1
    assert content["measurements"][0]["seconds"] == [2.0, 1.0, 4.0]
    assert content["measurements"][0]["setting"]["chunk"] == 1
    assert content.keys() >= {"date", "commit", "machine", "versions", "skipped", "waiting"}
    assert content["machine"].keys() >= {"processor", "cores", "instructions", "gpu", "load"}


def test_no_file_is_no_measurement(tmp_path: Path) -> None:
    assert read_bench(tmp_path / "bench-cpu.json") is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"speed": 3}, "speed: Extra inputs"),
        ({"date": None}, "date: Input should be a valid string"),
        ({"machine": {}}, "machine.device: Field required"),
        (
            {"measurements": [{"contender": "x", "variant": "y", "setting": {"steps": "two"}}]},
            "steps",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path, change: dict[str, object], expected: str
) -> None:
    path = save(bench(), tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"^{path}: expected measurements .*{expected}"):
        read_bench(path)


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    path = save(bench(), tmp_path)
    path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match=f"^{path}: "):
        read_bench(path)
