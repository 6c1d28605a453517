"""The commit that a measurement was made at."""

import subprocess


def describe(*options: str) -> str | None:
    """The commit of the current folder, "-dirty" added if files differ; None outside a checkout.

    ``options`` are of `git describe`.
    """
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*", *options]
    return _output(command)


def date() -> str | None:
    """The day of the current commit, as 2026-11-27; None outside a checkout."""
    return _output(["git", "log", "-1", "--format=%cs"])


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
