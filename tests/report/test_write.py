"""The whole report: the same bytes everywhere, all or nothing."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import report_samples as samples

import steadyspike
from steadyspike.errors import UserError
from steadyspike.report import write_report
from steadyspike.train.params import merge
from tiny import change_json, one_line

SOURCES = Path(steadyspike.__file__).parents[1]

PROGRAM = """
import sys
from pathlib import Path
from steadyspike.report import write_report
write_report(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_files_and_digests(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path, leave_out=("ots",))
    out = tmp_path / "new" / "reports"
    written = write_report(tmp_path, out)
    assert written == sorted(out.iterdir())
    tables = ("experiments", "operations", "table2", "table4")
    expected = {f"{table}.{kind}" for table in tables for kind in ("csv", "json", "md")}
    for figure in ("figure2a", "figure2b", "figure3", "training"):
        expected |= {f"{figure}.svg", f"{figure}.csv"}
    expected |= {"digests.json", "figure3_moments.csv", "index.html"}
    assert {path.name for path in written} == expected
    digests = json.loads((out / "digests.json").read_text())
    known = samples.digests(samples.settings("osr"))
    assert digests["osr"] == {key: known[key] for key in ("fingerprint", "batches")}
    assert "ots" not in digests


@pytest.mark.slow
def test_the_same_bytes_in_another_process_place_and_time(tmp_path: Path) -> None:
    results = []
    surroundings = (
        {"PYTHONHASHSEED": "1", "TZ": "UTC", "LC_ALL": "C", "PYTHONUTF8": "0"},
        {"PYTHONHASHSEED": "2", "TZ": "Asia/Tokyo", "LC_ALL": "C.UTF-8", "MPLBACKEND": "Agg"},
    )
    for place, extra in enumerate(surroundings):
        folder = samples.write_pipeline(tmp_path / f"copy {place}", leave_out=("linear",))
        settings = folder / "matplotlib"
        settings.mkdir()
        # The user's own style must not show.
        (settings / "matplotlibrc").write_text(f"lines.linewidth: {place + 3}\nfont.size: 20\n")
        environment = os.environ | extra | {"PYTHONPATH": str(SOURCES)}
        environment |= {"MPLCONFIGDIR": str(settings)}
        subprocess.run(
            [sys.executable, "-c", PROGRAM, str(folder), str(folder / "out")],
            env=environment,
            check=True,
            timeout=120,
        )
        results.append({path.name: path.read_bytes() for path in (folder / "out").iterdir()})
    assert results[0].keys() == results[1].keys()
    for name, content in results[0].items():
        assert content == results[1][name], name
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


@pytest.mark.parametrize(
    ("file", "change", "key"),
    [
        ("metrics.json", lambda m: m.pop("operations"), "operations"),
        ("metrics.json", lambda m: m["accuracy"].update(last=120.0), "accuracy.last"),
        ("metrics.json", lambda m: m["firing_rate"].update(per_step=[]), "firing_rate.per_step"),
        ("metrics.json", lambda m: m.update(experiment="another"), "experiment"),
        ("metrics.json", lambda m: m["evaluation"].update(threshold="soft"), "evaluation.thresh"),
        ("layers.json", lambda m: m["bins"].update(low=3.0), "bins.low"),
        ("layers.json", lambda m: m["layers"][0].update(name="\x1b[0m"), "layers.0.name"),
        ("digests.json", lambda d: d.update(batches={"1": {"w": "<b>"}}), "batches.1.w"),
    ],
)
def test_a_damaged_value(
    tmp_path: Path, file: str, change: Callable[[dict[str, Any]], Any], key: str
) -> None:
    samples.write_pipeline(tmp_path)
    path = tmp_path / "runs" / "osr_ots" / file
    change_json(path, change)
    refused(tmp_path, f"{path}: {key}")


@pytest.mark.parametrize("file", ["metrics.json", "layers.json", "digests.json"])
@pytest.mark.parametrize("text", ["{", "", "[]", '{"loss": NaN}', "[" * 100_000, "\xff\xfe"])
def test_a_file_that_is_no_json_object(tmp_path: Path, file: str, text: str) -> None:
    samples.write_pipeline(tmp_path)
    path = tmp_path / "runs" / "osr_ots" / file
    path.write_text(text, encoding="latin-1")
    refused(tmp_path, str(path))


@pytest.mark.parametrize(
    ("file", "text", "key"),
    [
        ("memory.csv", "method,steps\nonline,2\n", "bytes"),
        ("memory.csv", "method,steps,bytes\nonline,2,1\nguess,4,1\n", "line 3, method"),
        ("memory.csv", "method,steps,bytes\n", "at least one row"),
        ("osr/history.csv", "epoch,learning_rate\n1,0.1\n", "expected a column"),
        ("osr/history.csv", "", "expected a column"),
    ],
)
def test_a_damaged_csv_file(tmp_path: Path, file: str, text: str, key: str) -> None:
    samples.write_pipeline(tmp_path)
    path = tmp_path / "runs" / file
    path.write_text(text)
    refused(tmp_path, str(path), key)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("experiments: {a: {}}", "experiments.a: seeds: missing"),
        ("experiments: {}", "experiments"),
        ("a: [", ""),
    ],
)
def test_damaged_parameters(tmp_path: Path, text: str, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    refused(tmp_path, str(path), key)
    path.unlink()
    refused(tmp_path, str(path))


def test_a_run_with_other_parameters_than_params_yaml_has(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    change = {"osr": merge(samples.EXPERIMENTS["osr"], {"model": {"tau": 3.0}})}
    samples.write_params(tmp_path, samples.EXPERIMENTS | change)
    refused(tmp_path, "runs/osr/digests.json: fingerprint: ", "`dvc repro`")
    # The device and the chunk change no result.
    change = {"osr": merge(samples.EXPERIMENTS["osr"], {"device": "cuda"})}
    samples.write_params(tmp_path, samples.EXPERIMENTS | change)
    assert write_report(tmp_path, tmp_path / "out")


def test_layers_without_metrics_count_as_not_run(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    (tmp_path / "runs" / "osr_ots" / "metrics.json").unlink()
    write_report(tmp_path, tmp_path / "out")
    assert "not run" in (tmp_path / "out" / "figure3.svg").read_text()
