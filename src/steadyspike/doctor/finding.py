"""One thing that was looked at on this machine, and what to make of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found about ``topic``.

    ``note`` is worth knowing; ``problem`` would stop an experiment of the params.yaml at hand.
    ``advice`` is what to do, or empty. ``facts`` are the same for programs: plain values, sizes in
    bytes.
    """

    topic: str
    state: State
    found: str
    advice: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


def looked_at(topic: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """What ``look`` finds; where it fails itself, a note of that: no machine is too strange."""
    try:
        return look()
    except Exception as error:
        return [Finding(topic, "note", f"could not be found out: {first_line(error)}")]


def first_line(error: BaseException) -> str:
    """The error's own words, at least its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def size(count: int) -> str:
    """Bytes in the unit that a person would choose."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"
