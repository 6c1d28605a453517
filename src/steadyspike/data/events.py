"""Events of a camera, and their integration to frames of equal event count."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIDE = 128  # pixels of the DVS128, either way


@dataclass(frozen=True, eq=False)
class Events:
    """n events in the file's order: microseconds t, column x, row y, polarity p (0 or 1), all (n,).

    ``invalid`` counts the events left out because the camera's software marked them invalid.
    """

    t: NDArray[np.int64]
    x: NDArray[np.uint8]
    y: NDArray[np.uint8]
    p: NDArray[np.uint8]
    invalid: int = 0

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, end: int) -> "Events":
        """The events with start <= t < end, in the file's order even if times run backwards."""
        inside = (self.t >= start) & (self.t < end)
        return Events(self.t[inside], self.x[inside], self.y[inside], self.p[inside])


def integrate(events: Events, steps: int, side: int = SIDE) -> NDArray[np.int64]:
    """Counts of events (T, 2, side, side) by frame, polarity, row and column.

    Each of the T frames holds n // T events, in the order given; the last one takes the
    remainder too, so with fewer events than frames it holds all of them. As SpikingJelly's
    ``integrate_events_by_fixed_frames_number(..., split_by="number")``, which the paper's
    released code uses.
    """
    share = len(events) // steps
    sizes = np.full(steps, share)
    sizes[-1] += len(events) - steps * share
    position = np.repeat(np.arange(steps), sizes)  # (n,), the frame
    for size, values in ((2, events.p), (side, events.y), (side, events.x)):
        position *= size
        position += values
    counts = np.bincount(position, minlength=steps * 2 * side * side)
    return counts.reshape(steps, 2, side, side)
