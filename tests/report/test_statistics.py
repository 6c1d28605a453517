"""Intervals against numbers worked out elsewhere."""

import math
import random

import pytest

from steadyspike.report.statistics import (
    Mean,
    binomial_error,
    mean_of,
    paired_difference,
    t_quantile,
)


def test_the_interval_of_five_numbers() -> None:
    # By hand: mean 3, s² = 2.5, t(4) = 2.776; 2.776 √(2.5 / 5) = 1.963
    found = mean_of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found.n, found.value) == (5, 3.0)
    assert found.deviation == pytest.approx(math.sqrt(2.5))
    assert (found.low, found.high) == (
        pytest.approx(1.037, abs=1e-3),
        pytest.approx(4.963, abs=1e-3),
    )


def test_one_number_has_no_interval() -> None:
    found = mean_of([7.0])
    assert found == Mean(1, 7.0)
    assert (found.low, found.sign) == (None, None)


@pytest.mark.parametrize("count", [3, 5])
def test_the_interval_holds_the_mean_in_95_of_100_cases(count: int) -> None:
    draw = random.Random(count)
    cases = 4000
    hits = sum(
        abs(found.value) <= (found.half_width or 0)
        for found in (mean_of([draw.gauss(0, 1) for _ in range(count)]) for _ in range(cases))
    )
    # Four standard errors of a binomial share of 0.95
    assert hits / cases == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / cases))


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.7062), (4, 2.7764), (30, 2.0423), (40, 2.0211), (120, 1.9799)]
)
def test_quantiles(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=2e-3)


def test_quantiles_fall_towards_the_normal_ones() -> None:
    quantiles = [t_quantile(freedom) for freedom in range(1, 200)]
    assert quantiles == sorted(quantiles, reverse=True)
    assert quantiles[-1] > 1.96


def test_pairs_are_of_the_same_seed() -> None:
    ours = {"0": 80.0, "1": 90.0, "2": 70.0}
    difference = paired_difference(ours, {"1": 89.0, "0": 78.0, "7": 0.0})
    assert difference is not None
    assert (difference.n, difference.value) == (2, 1.5)
    assert difference.sign == 0  # 12.706 * 0.7071 / √2 = 6.35
    assert paired_difference(ours, {"7": 0.0}) is None


@pytest.mark.parametrize(("values", "sign"), [([1.0, 1.1], 1), ([-1.0, -1.1], -1), ([1, 9], 0)])
def test_the_sign_needs_the_whole_interval(values: list[float], sign: int) -> None:
    assert mean_of(values).sign == sign


def test_the_error_of_a_thousand_images() -> None:
    # √(0.85 * 0.15 / 1000) = 0.01129
    assert binomial_error(85.0, 1000) == pytest.approx(2.213, abs=1e-3)
    assert binomial_error(100.0, 1000) == 0
