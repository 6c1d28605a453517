"""Files of a measured run: what is written is read back, and damaged files are refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report import samples
from steadyspike import records
from steadyspike.errors import UserError
from steadyspike.evaluate import metrics
from tiny import change_json, one_line, read_json

METRICS = metrics.Metrics.model_validate(samples.metrics("osr"))
LAYERS = metrics.Layers.model_validate(samples.layers(2, steps=2, count=3))
MEMORY = [
    metrics.Memory(method="online", chunk=1, steps=2, bytes=1_894_572),
    metrics.Memory(method="bptt", chunk=30, steps=30, bytes=2**40),
]


Change = Callable[[dict[str, Any]], object]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    of_seeds = metrics.Metrics.model_validate(
        samples.metrics("osr", accuracies=[(70.0, 71.0), (73.0, 73.5)])
    )
    assert of_seeds.accuracy.model_dump() == {"last": 71.5, "best": 72.25, "best_epoch": None}
    for values in (of_seeds, METRICS):
        metrics.write_metrics(path, values)
        assert metrics.read_metrics(path) == values
    assert read_json(path)["inference"] == {"live": 73.961}  # what was not measured is left out
    metrics.write_layers(path, LAYERS)
    assert metrics.read_layers(path) == LAYERS
    metrics.write_memory(path, MEMORY)
    assert metrics.read_memory(path) == MEMORY


# Refused


def refused(read: Callable[[Path], object], path: Path, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        read(path)
    assert one_line(caught.value, *words).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda m: m.pop("accuracy"), "accuracy"),
        (lambda m: m["accuracy"].update(last="71"), "accuracy.last"),
        (lambda m: m["accuracy"].update(last=120.0), "accuracy.last"),
        (
            lambda m: m["after_steps"]["batch"]["votes_accuracy"].pop(),
            "after_steps.batch: votes_accuracy",
        ),
        (
            lambda m: m["after_steps"].update(
                batch={"step_accuracy": [1.0], "votes_accuracy": [1.0]}
            ),
            "after_steps: batch",
        ),
        (lambda m: m["loss"].update(test=float("nan")), "loss.test"),
        (lambda m: m["firing_rate"].update(gross=14.75), "firing_rate.gross"),
        (lambda m: m["firing_rate"].update(per_step=[0.1, "x"]), "firing_rate.per_step.1"),
        (lambda m: m["firing_rate"].update(per_step=[]), "firing_rate.per_step"),
        (lambda m: m["operations"].update(energy_nanojoule=-1.0), "operations.energy_nanojoule"),
        (lambda m: m.update(parameters=True), "parameters"),
        (lambda m: m.update(experiment="a\x1b[0m"), "experiment"),
        (lambda m: m.update(seeds={"0": {"accuracy": {"last": 1.0}}}), "seeds.0.accuracy.best"),
        (lambda m: m["evaluation"].update(threshold="soft"), "evaluation.threshold"),
        (lambda m: m["evaluation"].update(batch=0), "evaluation.batch"),
        (lambda m: m["bins"].pop("low"), "bins.low"),
        (lambda m: m["bins"].update(low=3.0), "bins.low"),
        (lambda m: m["layers"][1]["counts"].pop(), "layers.1.counts"),
        (lambda m: m["layers"][1]["counts"][1].pop(), "layers.1.counts"),
        (lambda m: m["layers"][1]["threshold"].append(1.0), "layers.1.threshold"),
        (lambda m: m["layers"][0].update(name="\x1b[0m"), "layers.0.name"),
        (lambda m: m["layers"][0].update(counts=[]), "layers.0.counts"),
        (lambda m: m.update(layers=[]), "layers"),
    ],
)
def test_malformed_values(tmp_path: Path, change: Change, key: str) -> None:
    path = tmp_path / "file"
    of_layers = key.startswith(("bins", "layers"))
    if of_layers:
        metrics.write_layers(path, LAYERS)
    else:
        metrics.write_metrics(path, METRICS)
    change_json(path, change)
    refused(metrics.read_layers if of_layers else metrics.read_metrics, path, f": {key}: ")


@pytest.mark.parametrize(
    "content", [b"{", b"", b"[]", b"3", b"[" * 100_000, b"\xff", b'{"loss": ' + b"9" * 10_000]
)
def test_what_is_no_json_object(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    refused(metrics.read_metrics, path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"method,chunk,steps\nonline,1,2\n", "bytes: expected a column of this name"),
        (b"method,chunk,steps,bytes\nonline,1,two,1\n", "line 2, steps: "),
        (b"method,chunk,steps,bytes\nonline,1,2,1\nguess,1,4,1\n", "line 3, method: "),
        (b"method,chunk,steps,bytes\nonline,1,2\n", "line 2, bytes: "),
        (b"method,chunk,steps,bytes\nonline,1,2,%s\n" % (b"9" * 70), "line 2, bytes: "),
        (b"method,chunk,steps,bytes\n", "at least one row"),
        (b"", "expected a column of this name"),
        (b"\xff\xfe", "not a CSV file"),
        (b"method,chunk,steps,bytes\n" + b"9" * 200_000, "not a CSV file"),
    ],
)
def test_malformed_memory(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "memory.csv"
    path.write_bytes(content)
    refused(metrics.read_memory, path, words)


@pytest.mark.parametrize("read", [metrics.read_metrics, metrics.read_layers, metrics.read_memory])
def test_missing_too_large_or_a_folder(tmp_path: Path, read: Callable[[Path], object]) -> None:
    refused(read, tmp_path / "none", "not found")
    refused(read, tmp_path, "cannot be read: Is a directory")
    path = tmp_path / "large"
    path.write_bytes(b" " * (records.LARGEST + 1))
    refused(read, path, "too large")
