"""What a part of the harness has measured: rows of the page."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One claim, how often it was tried, and how often it held."""

    claim: str  # what a reader is promised, in a sentence without a full stop
    held: int
    tried: int
    figures: str  # what else was measured, with units: "slowest stop 0.4 s"; may be empty
    command: str  # what a reader types to try it again, in the repository's root

    @property
    def holds(self) -> bool:
        return self.tried > 0 and self.held == self.tried
