"""Shows with figures that no run is lost and nothing harmful is let in; writes docs/reliability.md.

Usage: python tools/reliability [--few] [PART ...]

Each part is a module with ``measure(work, few)``, which yields its rows. What an earlier run has
measured of other parts is kept in docs/reliability.json. ``--few`` tries each claim a few times
and writes nothing. Exits with 1 if a row does not hold.
"""

import argparse
import importlib
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from page import Part, machine, read_parts, write_page
from rows import Row

#: In the order of the page: module, and its heading.
PARTS = {
    "kills": "A kill at any moment",
    "stops": "A stop in time, a damaged checkpoint",
    "changes": "A changed world",
    "places": "Same bits elsewhere",
    "inputs": "Hostile and broken input",
    "supply": "Supply chain",
}
REPOSITORY = Path(__file__).parents[2]


def main() -> int:
    command = argparse.ArgumentParser(prog="tools/reliability", description=__doc__)
    command.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    command.add_argument("--few", action="store_true", help="a few tries of each; nothing written")
    options = command.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        command.error(f"{min(unknown)}: expected one of {', '.join(PARTS)}")
    # Not without cleaning up.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    held = True
    for name in options.parts or PARTS:
        where = machine(REPOSITORY)  # others may commit while this runs
        began = time.monotonic()
        try:
            rows = measure(name, options.few)
        except Exception:  # of the harness itself: what it has measured before is kept
            traceback.print_exc()
            held = False
            continue
        held = held and bool(rows) and all(row.holds for row in rows)
        part = Part(PARTS[name], tuple(rows), round(time.monotonic() - began), **where)
        if not options.few:  # part by part: a later one may be interrupted
            measured = {**read_parts(REPOSITORY), name: part}
            write_page(REPOSITORY, {part: measured[part] for part in PARTS if part in measured})
    return 0 if held else 1


def measure(name: str, few: bool) -> list[Row]:
    """The rows of one part, told as they come."""
    rows = []
    with tempfile.TemporaryDirectory(prefix=f"steadyspike-{name}-") as work:
        for row in importlib.import_module(name).measure(Path(work), few):
            show(name, row)
            rows.append(row)
    return rows


def show(part: str, row: Row) -> None:
    mark = "holds" if row.holds else "FAILS"
    print(f"{part}: {mark}: {row.claim}: {row.held} of {row.tried}; {row.figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
