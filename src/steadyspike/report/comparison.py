"""Each method beside a baseline, seed by seed: what is more than chance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from steadyspike.evaluate.metrics import Measurement
from steadyspike.report.methods import METHODS, Method
from steadyspike.report.results import Results, Row
from steadyspike.report.statistics import Mean, mean_of, paired_difference
from steadyspike.report.table import Column, Table, Value


def baseline_of(results: Results) -> Method:
    """The method that others are compared with: vanilla BN, or else the paper's method."""
    methods = {run.method.key for each in results.pipelines.values() for run in each.runs}
    return METHODS["per_step" if "per_step" in methods else "osr_ots"]


@dataclass(frozen=True)
class Quantity:
    """What is compared; ``more`` and ``less`` say how a method differs from the baseline."""

    name: str
    of: Callable[[Measurement], float]
    more: str
    less: str


ACCURACY = Quantity(
    "Accuracy after all steps, %",
    lambda m: m.accuracy.last,
    "more accurate",
    "less accurate",
)
FIRST_STEP = Quantity(
    "Accuracy of the first step alone, %",
    lambda m: m.after_steps.inference.step_accuracy[0],
    ACCURACY.more,
    ACCURACY.less,
)
GAP = Quantity(
    "Train–inference gap of the first step, points",
    lambda m: m.after_steps.gap,
    "larger",
    "smaller",
)
RATE = Quantity(
    "Gross firing rate, %",
    lambda m: 100 * m.firing_rate.gross,
    "higher",
    "lower",
)
SPREAD = Quantity(
    "Firing rate, highest step less lowest, points",
    lambda m: 100 * (max(m.firing_rate.per_step) - min(m.firing_rate.per_step)),
    "less steady",
    "steadier",
)
QUANTITIES = (ACCURACY, FIRST_STEP, GAP, RATE, SPREAD)


def of_seeds(row: Row, quantity: Quantity) -> dict[str, float]:
    """The quantity of each seed."""
    return {seed: quantity.of(measured) for seed, measured in row.by_seed.items()}


def mean_of_seeds(row: Row, quantity: Quantity) -> Mean:
    """The quantity's mean, with its interval."""
    return mean_of(list(of_seeds(row, quantity).values()))


def difference(ours: Row, other: Row, quantity: Quantity) -> Mean | None:
    """The paired difference of two experiments; None if they share no seed."""
    return paired_difference(of_seeds(ours, quantity), of_seeds(other, quantity))


def comparison(results: Results) -> Table:
    """Means and intervals of each quantity; without rows if no experiment has several seeds."""
    rows = [row for row in results.measured() if len(row.by_seed) > 1]
    baseline = baseline_of(results)
    columns = _columns(baseline.label)
    baselines = {
        (row.dataset, row.network): row
        for row in reversed(rows)
        if row.run is not None and row.run.method.key == baseline.key
    }
    values = [_line(row, quantity, baselines) for quantity in QUANTITIES for row in rows]
    # As in other tables, a column that does not tell rows apart is left out.
    alike = {
        place
        for place, column in enumerate(columns)
        if column.key in ("dataset", "network") and len({line[place] for line in values}) < 2
    }
    return Table(
        name="comparison",
        title=f"What is more than chance: means over seeds, and differences from {baseline.label}",
        columns=[column for place, column in enumerate(columns) if place not in alike],
        rows=[[v for place, v in enumerate(line) if place not in alike] for line in values],
        notes=[
            "± is the standard deviation over seeds (n − 1). Intervals are Student's t, each 95 % "
            "on its own; differences are between runs of the same seed. They say what other seeds "
            "would give on these test images; other test images add the test set's error "
            "(Table 4).",
            "A verdict is given only if the whole interval of the difference is on one side of 0.",
        ],
        groups=("quantity",),
    )


def _columns(baseline: str) -> list[Column]:
    return [
        Column("quantity", "Quantity"),
        Column("method", "Method"),
        Column("dataset", "Data set"),
        Column("network", "Network"),
        Column("experiment", "Experiment", code=True),
        Column("seeds", "Seeds", 0),
        Column("mean", "Mean", 2),
        Column("std", "±", 2),
        Column("low", "95 % from", 2),
        Column("high", "to", 2),
        Column("difference", f"Less {baseline}’s", 2, signed=True),
        Column("difference_low", "95 % from", 2, signed=True),
        Column("difference_high", "to", 2, signed=True),
        Column("verdict", f"Than {baseline}"),
    ]


def _line(row: Row, quantity: Quantity, baselines: Mapping[tuple[str, str], Row]) -> list[Value]:
    mean = mean_of_seeds(row, quantity)
    baseline = baselines.get((row.dataset, row.network))
    found = None
    if baseline is not None and baseline is not row:
        found = difference(row, baseline, quantity)
    differences = (found.value, found.low, found.high) if found else (None, None, None)
    numbers = (mean.value, mean.deviation, mean.low, mean.high, *differences)
    return [
        quantity.name,
        row.method,
        row.dataset,
        row.network,
        row.name,
        mean.n,
        *("" if number is None else number for number in numbers),
        "" if found is None else verdict(found, quantity),
    ]


def verdict(found: Mean, quantity: Quantity) -> str:
    """In words, where the interval allows it."""
    words = {1: quantity.more, -1: quantity.less, 0: "no difference shown"}
    return "" if found.sign is None else words[found.sign]
