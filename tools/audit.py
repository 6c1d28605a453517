"""Looks every package of the locks up in the OSV database of known vulnerabilities.

Usage: python tools/audit.py [LOCK ...]

Exits with 1 if one is known to be vulnerable, or the audit failed. Where the database cannot be
reached it says that nothing was audited, and why, and exits with 0. OSV_URL names another one than
the public database.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
URL_VARIABLE = "OSV_URL"
PYTHON = REPOSITORY / "build" / "audit" / "bin" / "python"
#: What the errors of a database that is not there end in; any other error is one of ours.
UNREACHABLE = re.compile(r"(?m)^requests\.exceptions\.(?:Connection\w*|\w*Timeout|ProxyError)\b.*")
CAUSE = re.compile(r"Failed to resolve '[^']*'|\[Errno -?\d+\] [\w ]+|[\w ]*timed out")


@dataclass(frozen=True)
class Audit:
    """What became of it."""

    audited: int = 0  # entries of locks that were looked up
    unknown: tuple[str, ...] = ()  # packages that the database cannot look up
    vulnerable: tuple[str, ...] = ()  # a line each
    skipped: str = ""  # why the rest was not looked up
    failed: str = ""

    @property
    def passes(self) -> bool:
        return not (self.vulnerable or self.failed)

    def told(self) -> str:
        """In a line, without what is vulnerable."""
        if self.failed:
            return f"failed: {self.failed}"
        if self.skipped and not self.audited:
            return f"skipped, nothing was looked up: {self.skipped}"
        unknown = f"; not known there: {', '.join(self.unknown)}" if self.unknown else ""
        skipped = f"; skipped: {self.skipped}" if self.skipped else ""
        return (
            f"{self.audited} locked packages looked up, {len(self.vulnerable)} vulnerable"
            f"{unknown}{skipped}"
        )


def locks() -> list[Path]:
    """The repository's, by name."""
    return sorted(REPOSITORY.glob("requirements*.lock"))


def audit(of: Sequence[Path]) -> Audit:
    """Looks up what the locks would install on this platform, up to the first that cannot be."""
    results: list[Audit] = []
    for lock in of:
        results.append(_of_one(lock))
        if results[-1].skipped or results[-1].failed:
            break
    return Audit(
        audited=sum(result.audited for result in results),
        unknown=tuple(sorted({name for result in results for name in result.unknown})),
        vulnerable=tuple(sorted({line for result in results for line in result.vulnerable})),
        skipped=results[-1].skipped,
        failed=results[-1].failed,
    )


def _of_one(lock: Path) -> Audit:
    url = os.environ.get(URL_VARIABLE)
    done = subprocess.run(
        [
            *(str(PYTHON), "-m", "pip_audit", "--disable-pip", "--require-hashes"),
            # Its other services take a package that they do not know for a safe one.
            *("--vulnerability-service", "osv", *(("--osv-url", url) if url else ())),
            *("--format", "json", "--progress-spinner", "off", "--requirement", str(lock)),
        ],
        capture_output=True,
        text=True,
    )
    try:
        found = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return _without_result(done.stderr)
    return Audit(
        audited=sum("vulns" in package for package in found),
        unknown=tuple(package["name"] for package in found if "vulns" not in package),
        vulnerable=tuple(
            f"{package['name']} {package['version']}: {known['id']}"
            + (f", repaired in {' or '.join(known['fix_versions'])}" * bool(known["fix_versions"]))
            for package in found
            for known in package.get("vulns", [])
        ),
    )


def _without_result(error: str) -> Audit:
    lines = error.strip().splitlines()
    last = lines[-1] if lines else "pip-audit said nothing"
    unreachable = UNREACHABLE.search(error)
    if unreachable is None:
        return Audit(failed=last)
    cause = CAUSE.search(unreachable[0])
    return Audit(skipped=f"the database does not answer ({cause[0] if cause else last})")


def main() -> int:
    command = argparse.ArgumentParser(prog="tools/audit.py", description=__doc__.split("\n")[0])
    command.add_argument("locks", nargs="*", type=Path, metavar="LOCK", help="(default: all)")
    options = command.parse_args()
    subprocess.run([REPOSITORY / "tools" / "audit_tools.sh"], check=True)
    result = audit(options.locks or locks())
    for line in result.vulnerable:
        print(f"audit: VULNERABLE: {line}")
    print(f"audit: {result.told()}")
    return 0 if result.passes else 1


if __name__ == "__main__":
    sys.exit(main())
