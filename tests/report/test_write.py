"""The whole report: the same bytes everywhere, all or nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import report_samples as samples

import steadyspike
from steadyspike.errors import UserError
from steadyspike.report import write_report

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
    assert [path.name for path in written] == [
        "digests.json",
        "figure2a.csv",
        "figure2a.svg",
        "figure2b.csv",
        "figure2b.svg",
        "figure3.csv",
        "figure3.svg",
        "figure3_moments.csv",
        "index.html",
        "table2.csv",
        "table2.json",
        "table2.md",
        "table4.csv",
        "table4.json",
        "table4.md",
        "training.csv",
        "training.svg",
    ]
    digests = json.loads((out / "digests.json").read_text())
    assert digests["osr"] == samples.digests(samples.settings("osr"))
    assert "ots" not in digests


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
        # The reader's own taste in figures must not show.
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
        assert content.endswith(b"\n") or not content  # files end in a newline


def test_an_error_writes_nothing_over_an_older_report(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path)
    out = tmp_path / "out"
    write_report(tmp_path, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "runs" / "osr" / "metrics.json").write_text(json.dumps(samples.metrics("osr")))
    (tmp_path / "runs" / "per_step" / "metrics.json").write_text("{}")
    with pytest.raises(UserError, match=r"metrics\.json"):
        write_report(tmp_path, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
