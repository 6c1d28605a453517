"""Findings in the words that tests compare."""

from steadyspike.doctor.finding import Finding


def told(findings: list[Finding]) -> list[tuple[str, str, str]]:
    return [(one.topic, one.state, one.found) for one in findings]


def states(findings: list[Finding]) -> dict[str, tuple[str, str]]:
    return {one.topic: (one.state, one.found) for one in findings}
