"""Shows with figures that no run is lost and nothing harmful is let in; writes docs/reliability.md.

Usage: python tools/reliability [--few] [PART ...]

Each part is a module with ``measure(work, few)``, which yields its rows. What an earlier run has
measured of other parts is kept in docs/reliability.json. ``--few`` tries each claim a few times
and writes nothing. Exits with 1 if a row does not hold.
"""

import argparse
import importlib
import sys
import tempfile
import time
from pathlib import Path

from page import Part, machine, read_parts, write_page
from rows import Row

#: In the order of the page: module, and its heading.
PARTS = {
    "kills": "A kill at any moment",
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
    measured = read_parts(REPOSITORY)
    held = True
    for name in options.parts or PARTS:
        began = time.monotonic()
        rows = []
        with tempfile.TemporaryDirectory(prefix=f"steadyspike-{name}-") as work:
            for row in importlib.import_module(name).measure(Path(work), options.few):
                show(name, row)
                rows.append(row)
        held = held and bool(rows) and all(row.holds for row in rows)
        seconds = round(time.monotonic() - began)
        measured[name] = Part(PARTS[name], tuple(rows), seconds, **machine(REPOSITORY))
        if not options.few:  # part by part: a later one may be interrupted
            write_page(REPOSITORY, {part: measured[part] for part in PARTS if part in measured})
    return 0 if held else 1


def show(part: str, row: Row) -> None:
    mark = "holds" if row.holds else "FAILS"
    print(f"{part}: {mark}: {row.claim}: {row.held} of {row.tried}; {row.figures}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
