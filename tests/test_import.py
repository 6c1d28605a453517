"""Importing: the public names, and a command line that starts without loading torch."""

import subprocess
import sys

import steadyspike


def test_every_public_name_is_there() -> None:
    for name in steadyspike.__all__:
        assert getattr(steadyspike, name) is not None


def test_the_package_and_the_command_line_load_without_torch() -> None:
    program = "import sys, steadyspike.evaluate.metrics; from steadyspike import cli; cli.parser()"
    subprocess.run(
        [sys.executable, "-c", f"{program}; assert 'torch' not in sys.modules"], check=True
    )
