"""The page is well-formed, stands alone and shows names as names."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from report import samples
from report.page_reader import check_alone, read, tags, text_of
from steadyspike.report import write_report
from tiny import REPOSITORY

from .conftest import Reports

HOSTILE = "\"><script>alert(1)</script>&amp;'$x^2$ | `a` ${y} {{ 7 * 7 }}"


@pytest.mark.parametrize("left_out", [(), ("linear", "osr"), tuple(samples.EXPERIMENTS)])
def test_well_formed_and_self_contained(reports: Reports, left_out: tuple[str, ...]) -> None:
    folder = reports(*left_out)
    page = read(folder / "index.html")
    check_alone(page, folder.iterdir())
    source = (folder / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"@import|url\((?!#)", source)
    tables = 3 if len(left_out) == len(samples.EXPERIMENTS) else 5
    found = tags(page)
    assert found.count("caption") == found.count("table") == tables
    assert found.count("svg") == 5


def test_every_number_of_the_tables_is_on_the_page(reports: Reports) -> None:
    folder = reports("linear", "osr")
    text = text_of(read(folder / "index.html"))
    for name in ("table2", "table4", "operations", "experiments"):
        for line in (folder / f"{name}.csv").read_text().splitlines()[1:]:
            for cell in line.split(","):
                assert cell.strip('" ') in text
    for piece in ("4 of 6", "2,312,842", "32 – 64 – P", "dvc repro evaluate@linear"):
        assert piece in text


def test_it_says_where_the_test_images_were_not_used(tmp_path: Path) -> None:
    samples.write_params(tmp_path, {"osr_ots": {"dataset": {"validation": 1000}}})
    write_report(tmp_path, tmp_path / "out")
    text = text_of(read(tmp_path / "out" / "index.html"))
    assert "1,000 training images, held out" in text
    sentence = "Measured on the last 1,000 training images, which no experiment was trained on"
    for name in ("table2.md", "table4.md"):
        assert sentence in (tmp_path / "out" / name).read_text()


def test_hostile_names_are_shown_not_obeyed(tmp_path: Path) -> None:
    samples.write_params(tmp_path, {"osr_ots": samples.EXPERIMENTS["osr_ots"]})
    samples.write_run(tmp_path, "osr_ots")
    rows = samples.history("osr_ots")
    name = HOSTILE.replace(" ", "")  # separates names
    rows[2]["silent_layers"] = name
    samples.write_csv(tmp_path / "runs" / "osr_ots" / "history.csv", rows)
    layers = samples.layers(2)
    layers["layers"][0]["name"] = HOSTILE
    (tmp_path / "runs" / "osr_ots" / "layers.json").write_text(json.dumps(layers))
    write_report(tmp_path, tmp_path / "out")
    page = read(tmp_path / "out" / "index.html")
    assert "script" not in tags(page)
    assert name in text_of(page)
    text = (tmp_path / "out" / "table4.md").read_text()
    assert "<" not in text.replace("\\<", "")


@pytest.mark.slow
def test_the_wheel_has_the_template(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        timeout=120,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for file in ("page.html.j2", "page.css", "paper.yaml", "published.yaml"):
        assert f"steadyspike/report/{file}" in names
