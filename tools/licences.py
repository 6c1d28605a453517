"""Writes docs/licences.md: the licence of every package that requirements.lock pins.

Usage: .venv/bin/python tools/licences.py
"""

import re
import sys
from collections import Counter
from pathlib import Path

from packages import packages

REPOSITORY = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-uv.lock")
PAGE = REPOSITORY / "docs" / "licences.md"
#: Of packages for Windows alone, as they tell it there.
FOR_WINDOWS = {"pywin32": "PSF-2.0", "tzdata": "Apache-2.0"}
_PINNED = re.compile(r"(?m)^([a-z0-9-]+)(?:\[[a-z,-]*\])?==(\S+)")


def pinned() -> dict[str, list[str]]:
    """The versions of every package in the locks; several where the platform decides."""
    found: dict[str, list[str]] = {}
    for lock in LOCKS:
        for name, version in _PINNED.findall((REPOSITORY / lock).read_text()):
            found.setdefault(name, []).append(version)
    return dict(sorted(found.items()))


def licences() -> dict[str, str]:
    """The licence of each; empty where none is told or the package is not installed here."""
    here = {package["name"]: package["licence"] for package in packages()}
    return {name: here.get(name) or FOR_WINDOWS.get(name, "") for name in pinned()}


def row(name: str, versions: list[str], told: str) -> str:
    """A package's line of the page."""
    return f"| {name} | {', '.join(versions)} | {told or 'not told'} |"


def page() -> str:
    """The page as Markdown."""
    found, versions = licences(), pinned()
    families = sorted(Counter(found.values()).items(), key=lambda each: (-each[1], each[0]))
    lines = [
        "# Licences",
        "",
        f"Of the {len(found)} packages that `requirements.lock` and `requirements-uv.lock` pin, as "
        "each tells it of itself: an SPDX expression, or the family that it names. Written by "
        "`.venv/bin/python tools/licences.py`; steadyspike itself is under the MIT licence "
        "([LICENSE](../LICENSE)). What else is in the image stands in its bill of materials "
        "([supply-chain.md](supply-chain.md)).",
        "",
        "| Licence | Packages |",
        "|---|---|",
        *(f"| {name or 'not told'} | {count} |" for name, count in families),
        "",
        "| Package | Version | Licence |",
        "|---|---|---|",
        *(row(name, versions[name], told) for name, told in found.items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Writes the page; 1 where a licence is missing."""
    missing = [name for name, told in licences().items() if not told]
    if missing:
        print(
            f"licences: {', '.join(missing)}: not installed here, or no licence told; `make setup` "
            "installs what requirements.lock pins, for Linux",
            file=sys.stderr,
        )
        return 1
    PAGE.write_text(page())
    print(PAGE.relative_to(REPOSITORY))
    return 0


if __name__ == "__main__":
    sys.exit(main())
