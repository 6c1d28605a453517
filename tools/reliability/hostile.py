"""Tries attacks one by one, each of which must be refused in time, with nothing written or run.

Usage: python tools/reliability/hostile.py GROUP FOLDER. A line for each: its name, a tab, and
what is wrong, if anything is.
"""

import importlib
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rows import Row

#: Module with ``attacks(inside)``, which yields name and attempt, and what the row says of it.
GROUPS = {
    "hostile_archives": "Archives with paths that lead out, links, devices, or bombs",
    "hostile_code": "Pickles, checkpoints, arrays and YAML with code",
    "hostile_sizes": "Files that promise or unpack to more than there is memory or time for",
    "hostile_downloads": "Downloads without TLS, without a known SHA-256 or with another one",
}
#: Made by code that should not have run.
SPRUNG = "sprung"
#: MiB that a refusal may take beside the libraries, and its seconds, on a machine with other work.
MEMORY, SECONDS = 400, 30
TIMEOUT = 600


def rows(work: Path, command: str) -> Iterator[Row]:
    """A row for each group, tried in a process of its own."""
    for group, claim in GROUPS.items():
        folder = work / group
        folder.mkdir(parents=True)
        run = subprocess.run(
            [sys.executable, __file__, group, str(folder)],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        tried = [line.split("\t") for line in run.stdout.splitlines()]
        for name, wrong in tried:
            if wrong:
                print(f"{group}: {name}: {wrong}", file=sys.stderr)
        if run.returncode:
            print(run.stderr[-3000:], file=sys.stderr)
        held = sum(not wrong for _, wrong in tried)
        names = ", ".join(name for name, _ in tried)
        # One that killed the process has no line.
        count = len(tried) + (run.returncode != 0)
        yield Row(f"{claim}: refused, nothing written or run", held, count, names, command)


def main(group: str, folder: Path) -> None:
    from steadyspike.errors import UserError

    victim, inside = folder / "victim", folder / "inside"
    victim.write_text("untouched")
    inside.mkdir()
    for name, attempt in importlib.import_module(group).attacks(inside):
        before, began = _peak(), time.monotonic()
        wrong = []
        try:
            attempt()
        except UserError as error:
            if not str(error):
                wrong.append("refused without a word")
        except Exception as error:
            wrong.append(f"ended in {error!r:.200}")
        else:
            wrong.append("not refused")
        if victim.read_text() != "untouched" or set(folder.iterdir()) != {victim, inside}:
            wrong.append("something was written outside")
        if any(inside.rglob(SPRUNG)):
            wrong.append("code was run")
        if list(inside.glob("out/*")):
            wrong.append("something was left")
            shutil.rmtree(inside / "out")
        if _peak() - before > MEMORY:
            wrong.append(f"{_peak() - before} MiB of memory")
        if time.monotonic() - began > SECONDS:
            wrong.append(f"{time.monotonic() - began:.0f} s")
        print(f"{name}\t{'; '.join(wrong)}", flush=True)


def _peak() -> int:
    """Peak memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
