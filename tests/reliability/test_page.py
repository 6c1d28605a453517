"""The page that the harness writes of what it has measured."""

import json
import subprocess
import sys
from pathlib import Path

import page
import pytest
from page import Part, machine, read_parts, write_page
from rows import Row

REPOSITORY = Path(__file__).parents[2]
HARNESS = REPOSITORY / "tools" / "reliability"
HOLDS = Row("It holds", 1200, 1200, "slowest 0.4 s", "python tools/reliability kills")
FAILS = Row("It fails", 2, 3, "", "a | b")


def part(*rows: Row) -> Part:
    return Part("A kill", rows, 75, "2026-01-02", "abc1234", "a processor", 2, "Python 3.11")


def test_a_row_holds_if_every_try_did_and_there_was_one() -> None:
    assert HOLDS.holds
    assert not FAILS.holds
    assert not Row("Nobody tried", 0, 0, "", "").holds


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    assert read_parts(tmp_path) == {}
    parts = {"kills": part(HOLDS, FAILS), "changes": part(HOLDS)}
    write_page(tmp_path, parts)
    assert read_parts(tmp_path) == parts


def test_the_page_says_how_many_rows_hold_and_which_do_not(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    write_page(tmp_path, {"kills": part(HOLDS, FAILS)})
    lines = (tmp_path / "docs" / "reliability.md").read_text().splitlines()
    assert "**1 of 2 rows hold.**" in lines
    assert (
        "| ✓ | It holds | 1,200 of 1,200 | slowest 0.4 s | `python tools/reliability kills` |"
        in lines
    )
    assert r"| ✗ | It fails | 2 of 3 |  | `a \| b` |" in lines
    assert any(line.startswith("2026-01-02, commit abc1234, a processor") for line in lines)
    assert any(line.endswith("; 1 min 15 s.") for line in lines)


def test_the_committed_page_is_that_of_the_committed_figures() -> None:
    path = REPOSITORY / "docs" / "reliability.md"
    assert path.read_text() == page.page(read_parts(REPOSITORY))


def test_the_machine_is_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REVISION", "of-the-image")
    told = machine(tmp_path)  # no repository
    assert told["commit"] == "of-the-image"
    assert told["cores"] >= 1
    assert f"Python {sys.version_info.major}." in told["versions"]


@pytest.fixture
def harness(tmp_path: Path) -> Path:
    """The harness in a repository of its own, with parts that end in every way."""
    folder = tmp_path / "tools" / "reliability"
    folder.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    for name in ("__main__.py", "page.py", "rows.py"):
        (folder / name).write_bytes((HARNESS / name).read_bytes())
    row = "from rows import Row\ndef measure(work, few):\n    yield Row('It', {}, 3, '', 'c')\n"
    (folder / "kills.py").write_text(row.format(3))
    (folder / "changes.py").write_text(row.format(2))
    (folder / "places.py").write_text(row.format(3) + "    raise ValueError(work)\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "status", "kept"),
    [
        (["kills"], 0, ["kills"]),
        (["kills", "changes"], 1, ["kills", "changes"]),  # a row that does not hold is on the page
        (["places", "kills"], 1, ["kills"]),  # a part that breaks is not, and stops no other
        (["kills", "--few"], 0, []),
        (["changes", "--few"], 1, []),
    ],
)
def test_parts_that_hold_that_fail_and_that_break(
    harness: Path, arguments: list[str], status: int, kept: list[str]
) -> None:
    ended = subprocess.run(
        [sys.executable, str(harness / "tools" / "reliability"), *arguments],
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == status, ended.stderr
    assert list(read_parts(harness)) == kept
    figures = harness / "docs" / "reliability.json"
    if kept:
        assert json.loads(figures.read_text())["kills"]["rows"][0]["held"] == 3
    assert ("ValueError" in ended.stderr) == ("places" in arguments)


def test_what_was_measured_before_stays(harness: Path) -> None:
    write_page(harness, {"supply": part(HOLDS)})
    test_parts_that_hold_that_fail_and_that_break(harness, ["kills"], 0, ["kills", "supply"])


def test_an_unknown_part_is_refused(harness: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(harness / "tools" / "reliability"), "kills", "sills"],
        env={"PYTHONPATH": str(REPOSITORY / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2
    assert "sills: expected one of kills, stops" in ended.stderr
