"""The whole report: the same bytes everywhere, all or nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from report import samples
from steadyspike.errors import UserError
from steadyspike.report import write_report
from steadyspike.report.results import Results
from steadyspike.train.params import merge
from tiny import change_json, contents, environment, one_line

from .conftest import Reports

PROGRAM = """
import sys
from pathlib import Path
from steadyspike.report import write_report
write_report(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_files_and_digests(reports: Reports) -> None:
    folder = reports("linear", "osr")
    tables = ("claims", "experiments", "operations", "table2", "table4")
    expected = {f"{table}.{kind}" for table in tables for kind in ("csv", "json", "md")}
    for figure in ("steps", "figure2a", "figure2b", "figure3", "training"):
        expected |= {f"{figure}.svg", f"{figure}.csv"}
    expected |= {"digests.json", "figure3_moments.csv", "index.html"}
    assert {path.name for path in folder.iterdir()} == expected
    digests = json.loads((folder / "digests.json").read_text())
    known = samples.digests(samples.settings("ots"))
    assert digests["ots"] == {key: known[key] for key in ("fingerprint", "batches")}
    assert "osr" not in digests


@pytest.mark.slow
def test_the_same_bytes_in_another_process_place_and_time(tmp_path: Path, reports: Reports) -> None:
    here = contents(reports("linear", "osr"))
    folder = samples.write_pipeline(tmp_path / "a copy", leave_out=("linear", "osr"))
    # The user's own style must not show.
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 3\nfont.size: 20\n")
    other = {"PYTHONHASHSEED": "1", "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONUTF8": "0"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(folder / "out")],
        env=environment(**other, MPLCONFIGDIR=str(tmp_path)),
        check=True,
        timeout=120,
    )
    there = contents(folder / "out")
    assert there.keys() == here.keys()
    for name, content in there.items():
        assert content == here[name], name
        assert str(tmp_path).encode() not in content
        assert b"\r" not in content
        assert content.endswith(b"\n")


# Bad input: one line that names file and key, and an older report stays as it is.


def refused(folder: Path, *words: str) -> None:
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "index.html").write_text("an older report")
    with pytest.raises(UserError) as caught:
        write_report(folder, folder / "out")
    one_line(caught.value, *words)
    assert [path.name for path in (folder / "out").iterdir()] == ["index.html"]
    assert (folder / "out" / "index.html").read_text() == "an older report"


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    return lambda path: change_json(path, change)


def text(content: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(content)


# Each file by one or two of its reader's cases.
@pytest.mark.parametrize(
    ("file", "damage", "key"),
    [
        ("params.yaml", text("experiments: {a: {}}"), "experiments.a: seeds: missing"),
        ("params.yaml", Path.unlink, "not found"),
        ("runs/osr_ots/metrics.json", changed(lambda m: m.pop("operations")), "operations: "),
        ("runs/osr_ots/metrics.json", changed(lambda m: m.update(experiment="b")), "experiment: "),
        ("runs/osr_ots/metrics.json", text("{"), "Invalid JSON"),
        ("runs/osr_ots/layers.json", changed(lambda m: m["bins"].update(low=3.0)), "bins.low: "),
        ("runs/osr_ots/layers.json", text("[]"), "Input should be an object"),
        (
            "runs/osr_ots/digests.json",
            changed(lambda d: d.update(batches={"1": {"w": "<b>"}})),
            "batches.1.w: ",
        ),
        ("runs/osr_ots/digests.json", text(""), "Invalid JSON"),
        ("runs/osr/history.csv", text("epoch,learning_rate\n1,0.1\n"), "expected a column"),
        ("runs/memory.csv", text("method,chunk,steps,bytes\nguess,1,4,1\n"), "line 2, method: "),
    ],
)
def test_a_damaged_file(
    tmp_path: Path, file: str, damage: Callable[[Path], object], key: str
) -> None:
    path = samples.write_pipeline(tmp_path) / file
    damage(path)
    refused(tmp_path, f"{path}: ", key)


def test_a_run_with_other_parameters_than_params_yaml_has(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    change = {"osr": merge(samples.EXPERIMENTS["osr"], {"model": {"tau": 3.0}})}
    samples.write_params(tmp_path, samples.EXPERIMENTS | change)
    refused(tmp_path, "runs/osr/digests.json: fingerprint: ", "`dvc repro`")
    # The device and the chunk change no result.
    change = {"osr": merge(samples.EXPERIMENTS["osr"], {"device": "cuda"})}
    samples.write_params(tmp_path, samples.EXPERIMENTS | change)
    Results.of_pipeline(tmp_path).check_current()


def test_layers_without_metrics_count_as_not_run(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    (tmp_path / "runs" / "osr_ots" / "metrics.json").unlink()
    runs = Results.of_pipeline(tmp_path).only.runs
    assert [run.layers for run in runs if run.name == "osr_ots"] == [None]
