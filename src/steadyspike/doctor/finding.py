"""A line of the report of `steadyspike doctor`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``advice`` is the remedy, empty where all is well.

    A ``problem`` would stop an experiment of the given params.yaml.
    """

    topic: str
    found: str
    advice: str = ""
    problem: bool = False

    @property
    def state(self) -> str:
        return "problem" if self.problem else "note" if self.advice else "ok"
