"""Means over seeds with their 95 % intervals, and the error of a finite test set."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

#: 97.5 % quantiles of Student's t with 1, 2, ... degrees of freedom: NIST/SEMATECH e-Handbook of
#: Statistical Methods, section 1.3.6.7.2.
_T = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
_NORMAL = 1.960  # of infinitely many


@dataclass(frozen=True)
class Mean:
    """The mean of n numbers, with the interval that holds the true mean in 95 % of cases.

    Attributes:
        deviation: sample standard deviation, which divides by n - 1; None if n is 1.
        half_width: of the interval, t s / √n; None if n is 1.
    """

    n: int
    value: float
    deviation: float | None = None
    half_width: float | None = None

    @property
    def low(self) -> float | None:
        return None if self.half_width is None else self.value - self.half_width

    @property
    def high(self) -> float | None:
        return None if self.half_width is None else self.value + self.half_width

    @property
    def sign(self) -> int | None:
        """1 or -1 if the whole interval is above or below zero, else 0; None without interval."""
        if self.half_width is None:
            return None
        if abs(self.value) <= self.half_width:
            return 0
        return 1 if self.value > 0 else -1


def mean_of(values: Sequence[float]) -> Mean:
    """The mean of at least one number, and its interval by Student's t."""
    n, value = len(values), statistics.fmean(values)
    if n == 1:
        return Mean(1, value)
    deviation = statistics.stdev(values)
    return Mean(n, value, deviation, t_quantile(n - 1) * deviation / math.sqrt(n))


def paired_difference(ours: Mapping[str, float], others: Mapping[str, float]) -> Mean | None:
    """The mean of ``ours`` minus ``others`` over the seeds of both; None if they share none."""
    # Without what rounding leaves of equal numbers
    differences = [round(ours[seed] - others[seed], 9) for seed in ours.keys() & others.keys()]
    return mean_of(sorted(differences)) if differences else None


def t_quantile(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    if freedom <= len(_T):
        return _T[freedom - 1]
    # Abramowitz and Stegun 26.7.5, to the first order
    return _NORMAL + (_NORMAL**3 + _NORMAL) / (4 * freedom)


def binomial_error(percent: float, images: int) -> float:
    """Half the width, in points, of the 95 % interval of an accuracy on a sample of ``images``."""
    share = percent / 100
    return 100 * _NORMAL * math.sqrt(share * (1 - share) / images)
