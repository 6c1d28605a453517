"""The tests with the mark `gpu`, in as many processes as pytest-xdist may start."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from common import Options
from record import REPOSITORY, Row

from steadyspike.variables import core_count

MOST_PROCESSES = 8  # each holds a CUDA context


def measure(options: Options) -> Iterator[Row]:
    files = [str(path) for path in sorted((REPOSITORY / "tests").rglob("test_*.py"))
             if "mark.gpu" in path.read_text(encoding="utf-8")]  # fmt: skip
    if options.rehearse:
        files = files[:1]  # whose tests are skipped without a GPU
    report = Path(options.work) / "tests.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", "--tb=short"]
    command += [f"--junitxml={report}", "-rf"]
    if importlib.util.find_spec("xdist") and not options.rehearse:
        command += ["-n", str(min(MOST_PROCESSES, core_count()))]
    done = subprocess.run([*command, *files], cwd=REPOSITORY)
    root = ElementTree.parse(report).getroot()
    cases = list(root.iter("testcase"))
    bad = {_name(case): problem for case in cases if (problem := _problem(case))}
    skipped = sum(case.find("skipped") is not None for case in cases)
    passed = len(cases) - len(bad) - skipped
    # Without a GPU all are skipped, which a rehearsal expects.
    sound = not bad and (skipped if options.rehearse else passed) > 0
    yield Row(
        "tests",
        f"{passed} passed, {len(bad)} failed, {skipped} skipped in {len(files)} files",
        holds=sound and done.returncode == 0,
        data={"passed": passed, "failed": len(bad), "skipped": skipped, "failures": bad},
    )
    for name, problem in bad.items():
        yield Row(name, problem.strip().splitlines()[0][:200], holds=False)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').removeprefix('tests.')}::{case.get('name')}"


def _problem(case: ElementTree.Element) -> str:
    """The failure's message and traceback, shortened; empty if there is none."""
    for kind in ("failure", "error"):
        found = case.find(kind)
        if found is not None:
            return f"{found.get('message', kind)}\n{(found.text or '')[-2000:]}"
    return ""
