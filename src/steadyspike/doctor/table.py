"""Findings for a person, for a log and for a program."""

import json
import sys
from collections.abc import Sequence

from steadyspike.doctor.finding import Finding

COLOURS = {"ok": "green", "note": "yellow", "problem": "bold red"}


def show(findings: Sequence[Finding]) -> None:
    """A table on a terminal; elsewhere a line a finding, and a line for its advice."""
    if sys.stdout.isatty():
        _show_table(findings)
        return
    width = max(len(finding.topic) for finding in findings)
    for finding in findings:
        print(f"{finding.state:8} {finding.topic:{width}}  {finding.found}")
        if finding.advice:
            print(f"{'':8} {'':{width}}  -> {finding.advice}")


def _show_table(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        told = Text(finding.found)
        if finding.advice:
            told.append(f"\n→ {finding.advice}", "italic")
        table.add_row(Text(finding.state, COLOURS[finding.state]), Text(finding.topic), told)
    Console().print(table)


def as_json(findings: Sequence[Finding]) -> str:
    """``{"findings": [{"advice", "facts", "found", "state", "topic"}, ...]}``."""
    content = {"findings": [vars(finding) for finding in findings]}
    return json.dumps(content, indent=2, sort_keys=True, default=str)
