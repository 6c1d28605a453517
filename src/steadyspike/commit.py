"""The commit that a measurement was made at."""

import subprocess
from pathlib import Path

#: Prints the commit, "-dirty" added if files differ.
DESCRIBE = ("git", "describe", "--always", "--dirty", "--exclude=*")


def describe(folder: Path = Path(), *, digits: int = 40) -> str | None:
    """The commit of a checkout, "-dirty" added if files differ; None outside one."""
    return _output([*DESCRIBE, f"--abbrev={digits}"], folder)


def date() -> str | None:
    """The day of the current commit, as 2026-11-27; None outside a checkout."""
    return _output(["git", "log", "-1", "--format=%cs"], Path())


def _output(command: list[str], folder: Path) -> str | None:
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=True, timeout=20
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
