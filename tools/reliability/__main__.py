"""Measure that interrupted and moved runs give the same bytes, and write docs/reliability.md.

Without a PART all are measured; those not measured keep their rows in docs/reliability.json.
With --few each claim is tried only a few times and nothing is written. The exit status is 1 if a
claim does not hold.
"""

import argparse
import importlib
import sys
import tempfile
import time
import traceback
from pathlib import Path

from page import Part, read_parts, surroundings, write_parts

#: The modules with ``measure(work, few)``, which yields rows, and their titles on the page.
PARTS = {
    "kills": "Killed at a random moment",
    "stops": "Stopped by a signal or a time limit; damaged checkpoints",
    "changes": "Resumed with other settings",
    "places": "The same bits in other environments",
    "inputs": "Broken files",
}


def main() -> int:
    command = argparse.ArgumentParser(
        prog="tools/reliability",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    command.add_argument("--few", action="store_true", help="a few tries each, nothing written")
    options = command.parse_args()
    for name in options.parts:
        if name not in PARTS:
            command.error(f"{name}: expected one of {', '.join(PARTS)}")
    held = [measured(name, options.few) for name in options.parts or PARTS]
    return 0 if all(held) else 1


def measured(name: str, few: bool) -> bool:
    """Measure one part, print its rows as they come and write the page; whether all rows hold."""
    where = surroundings()  # before, since the measurement takes many minutes
    began = time.monotonic()
    rows = []
    with tempfile.TemporaryDirectory(prefix=f"steadyspike-{name}-") as work:
        try:
            for row in importlib.import_module(name).measure(Path(work), few):
                mark = "holds" if row.holds else "FAILS"
                print(
                    f"{name}: {mark}: {row.claim}: {row.held} of {row.tried}; {row.figures}",
                    flush=True,
                )
                rows.append(row)
        except Exception:  # an error in this tool: earlier measurements stay as they are
            traceback.print_exc()
            return False
    if not few:
        part = Part(PARTS[name], tuple(rows), round(time.monotonic() - began), **where)
        parts = {**read_parts(), name: part}
        write_parts({name: parts[name] for name in PARTS if name in parts})
    return bool(rows) and all(row.holds for row in rows)


if __name__ == "__main__":
    sys.exit(main())
