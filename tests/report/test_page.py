"""The page is well-formed, stands alone and shows names as names."""

import json
import re
from pathlib import Path

import pytest
import report_samples as samples
from page_reader import check_alone, read

from steadyspike.report import write_report

HOSTILE = "\"><script>alert(1)</script>&amp;'$x^2$ | `a` ${y}"


@pytest.mark.parametrize("left_out", [(), ("linear",), tuple(samples.EXPERIMENTS)])
def test_well_formed_and_self_contained(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    samples.write_pipeline(tmp_path, leave_out=left_out)
    written = write_report(tmp_path, tmp_path / "out")
    page = read(tmp_path / "out" / "index.html")
    check_alone(page, written)
    source = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", source)
    assert page.tags.count("caption") == page.tags.count("table") == 2
    assert page.tags.count("svg") == 4


def test_shows_what_was_run_and_what_was_not(tmp_path: Path) -> None:
    samples.write_pipeline(tmp_path, leave_out=("linear",))
    write_report(tmp_path, tmp_path / "out")
    text = read(tmp_path / "out" / "index.html").text
    weights = samples.digests(samples.settings("osr"))["weights_sha256"]
    for piece in ("5 of 6", "2,312,842", "32 – 64 – P", "dvc repro evaluate@linear", weights):
        assert piece in text
    assert "Online Stabilization of Spiking Neural Networks" in text
    # The paper's 53.25 stands once, in the table's column for the paper.
    assert text.count("53.25") == 1


def test_hostile_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    dataset = {"dataset": {"name": HOSTILE}}
    samples.write_params(
        tmp_path, {"a--b.c": dataset, "osr_ots": samples.EXPERIMENTS["osr_ots"] | dataset}
    )
    samples.write_run(tmp_path, "a--b.c")
    samples.write_run(tmp_path, "osr_ots")
    path = tmp_path / "runs" / "osr_ots" / "layers.json"
    content = samples.layers(layers=2)
    content["layers"][0]["name"] = HOSTILE
    content["layers"][1]["threshold"] = [2.0, 1.0, 1.0, 1.0]
    content["layers"][0]["threshold"] = [3.0, 1.0, 1.0, 1.0]
    path.write_text(json.dumps(content))
    write_report(tmp_path, tmp_path / "out")
    page = read(tmp_path / "out" / "index.html")
    assert "script" not in page.tags
    # As the data set, as a row of the figure and in the sentences about it.
    assert page.text.count(HOSTILE) >= 3
