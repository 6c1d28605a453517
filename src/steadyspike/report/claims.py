"""What the paper claims, and whether it holds in the networks of one pipeline."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from steadyspike.evaluate.metrics import Memory
from steadyspike.report.comparison import (
    ACCURACY,
    FIRST_STEP,
    GAP,
    RATE,
    SPREAD,
    Quantity,
    difference,
    mean_of_seeds,
    of_seeds,
)
from steadyspike.report.methods import METHODS
from steadyspike.report.paper import cells
from steadyspike.report.results import Results, Row
from steadyspike.report.statistics import binomial_error
from steadyspike.report.table import Column, Table, shown

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"

_COLUMNS = (
    Column("claim", "Claim"),
    Column("verdict", "Here"),
    Column("paper", "The paper"),
    Column("measured", "Measured"),
    Column("why", "Why"),
)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper; ``measured`` are our numbers, ``reasons`` sentences on them."""

    name: str
    verdict: str
    paper: str
    measured: str
    reasons: tuple[str, ...] = ()

    @property
    def why(self) -> str:
        return " ".join(self.reasons)


def claims(results: Results) -> list[Claim]:
    """Those that this pipeline has measured; none for the report of the whole paper."""
    if results.of_paper:
        return []
    rows = _methods(results)
    found = [
        _accuracy_order(rows),
        _one_function(rows),
        _firing_order(rows),
        _steady_rates(rows),
        _flat_memory(results),
    ]
    return [claim for claim in found if claim is not None]


def claims_table(results: Results) -> Table:
    """A row for each."""
    return Table(
        "claims",
        "The paper's claims in these networks",
        _COLUMNS,
        [[c.name, c.verdict, c.paper, c.measured, c.why] for c in claims(results)],
        [
            "A difference between methods is decided by the 95 % interval of paired seeds; one "
            "seed decides none, whatever its numbers."
        ],
    )


def summary(claims: Sequence[Claim]) -> list[str]:
    """Sentences for the head of the page, what does not hold first."""
    sentences = [
        f"Does not hold here: {claim.name} ({claim.measured}). {claim.why}".rstrip()
        for claim in claims
        if claim.verdict == FAILS
    ]
    undecided = [claim for claim in claims if claim.verdict == OPEN]
    if undecided:
        listed = "; ".join(f"whether {claim.name}" for claim in undecided)
        reasons = " ".join(dict.fromkeys(why for claim in undecided for why in claim.reasons))
        sentences.append(f"Not decided here: {listed}. {reasons}".rstrip())
    holding = [claim.name for claim in claims if claim.verdict == HOLDS]
    if holding:
        sentences.append(f"Holds here: {'; '.join(holding)}.")
    return sentences


def _methods(results: Results) -> Mapping[str, Row]:
    """The first measured experiment of each method of the paper."""
    return {row.run.method.key: row for row in reversed(results.measured()) if row.run is not None}


def _accuracy_order(rows: Mapping[str, Row]) -> Claim | None:
    """Table 4: vanilla BN, OSR, OSR + OTS, from the least to the most accurate."""
    name = "OSR is more accurate than vanilla BN, and OSR + OTS than OSR"
    claim = _ranking(name, rows, ("per_step", "osr", "osr_ots"), ACCURACY, "Table 4")
    if claim is None:
        return None
    bn, reasons = rows["per_step"], claim.reasons
    every, first = (_value(bn, quantity) for quantity in (ACCURACY, FIRST_STEP))
    if claim.verdict != HOLDS and every - first > binomial_error(first, _images(bn)):
        reasons += (
            f"Vanilla BN's first step alone is right for {first:.1f} %, but the votes of all steps "
            f"reach {every:.1f} %: the later ones make up for it.",
        )
    test_error = f"the test set alone leaves ±{binomial_error(every, _images(bn)):.1f}"
    return replace(claim, measured=f"{claim.measured}; {test_error}", reasons=reasons)


def _one_function(rows: Mapping[str, Row]) -> Claim | None:
    """Why OSR is proposed: training and inference differ with BN, and are one function with OSR."""
    with_osr = [rows[m] for m in ("osr", "osr_ots") if m in rows]
    with_bn = [rows[m] for m in ("per_step", "bptt") if m in rows]
    if not with_osr or not with_bn:
        return None
    # The two accuracies are of the same images, so the sum of their errors is more than enough.
    apart = all(
        _value(row, GAP) > 2 * binomial_error(_value(row, FIRST_STEP), _images(row))
        for row in with_bn
    )
    equal = all(abs(gap) < 0.05 for row in with_osr for gap in of_seeds(row, GAP).values())
    shown = [rows[m] for m in ("per_step", "bptt", "ots", "osr", "osr_ots") if m in rows]
    values = ", ".join(f"{row.method} {_text(row, GAP)}" for row in shown)
    reasons: tuple[str, ...] = ()
    if "ots" in rows and "per_step" in rows:
        alone, without = (_value(rows[m], GAP) for m in ("ots", "per_step"))
        if alone < 0.2 * without:
            reasons = (
                "OTS alone closes most of the gap too, which the paper does not report: it makes "
                "the steps alike, so that one set of running statistics fits all of them.",
            )
    return Claim(
        "training and inference are one function with OSR, not with BN",
        HOLDS if apart and equal else FAILS,
        "why it proposes OSR; it gives no number",
        f"first step, accuracy as in training less at inference: {values} points",
        reasons,
    )


def _firing_order(rows: Mapping[str, Row]) -> Claim | None:
    """Table 2: OSR + OTS fires least, then OTS, vanilla BN and OSR."""
    name = "OSR + OTS fires least, then OTS, vanilla BN and OSR"
    return _ranking(name, rows, ("osr_ots", "ots", "per_step", "osr"), RATE, "Table 2")


def _ranking(
    name: str, rows: Mapping[str, Row], methods: Sequence[str], quantity: Quantity, table: str
) -> Claim | None:
    """That methods have ever more of a quantity, in percent; None if one was not measured."""
    if not rows.keys() >= set(methods):
        return None
    verdict, reasons = _ascending([rows[method] for method in methods], quantity)
    theirs = _paper_order(table.lower().replace(" ", ""), methods)
    values = ", ".join(f"{_label(m)} {_text(rows[m], quantity)}" for m in methods)
    return Claim(name, verdict, f"{table}: {theirs}", f"{values} %", reasons)


def _steady_rates(rows: Mapping[str, Row]) -> Claim | None:
    """Figure 2b: with OTS the firing rate is the same at every step."""
    pairs = [pair for pair in (("ots", "per_step"), ("osr_ots", "osr")) if rows.keys() >= set(pair)]
    if not pairs:
        return None
    verdicts = [_ascending([rows[method] for method in pair], SPREAD) for pair in pairs]
    theirs = {cell.method: cell.rates for cell in cells("figure2b")}
    methods = list(dict.fromkeys(method for pair in pairs for method in reversed(pair)))
    spreads = {m: 100 * (max(theirs[m]) - min(theirs[m])) for m in methods if m in theirs}
    values = ", ".join(f"{_label(m)} {_text(rows[m], SPREAD)}" for m in methods)
    return Claim(
        "OTS keeps the firing rate steady over the steps",
        _worst([verdict for verdict, _ in verdicts]),
        "Figure 2b: " + ", ".join(f"{_label(m)} {spread:.0f}" for m, spread in spreads.items()),
        f"highest step less lowest: {values} points",
        tuple(dict.fromkeys(why for _, reasons in verdicts for why in reasons)),
    )


def _flat_memory(results: Results) -> Claim | None:
    """Figure 2a: the memory of online training does not depend on T."""
    points = results.only.memory or []
    lines = {
        chunk: {point.steps: point.bytes for point in points if _line(point) == chunk}
        for chunk in sorted({_line(point) for point in points})
    }
    growing = lines.pop(0, {})
    if not lines or not growing:
        return None
    first, last = min(growing), max(growing)
    is_flat = all(
        # Fewer than K steps fill no call.
        len({size for steps, size in line.items() if steps >= chunk}) == 1
        for chunk, line in lines.items()
    )
    same = "the same" if is_flat else "not the same"
    values = ", ".join(f"K {k} {line[last] / 1e6:.2f} MB" for k, line in lines.items())
    return Claim(
        "the memory of online training does not grow with T",
        HOLDS if is_flat else FAILS,
        "Figure 2a, all of a GPU's memory in use: "
        + ", ".join(
            f"{_label(cell.method)} {cell.first / 1000:.1f} to {cell.last / 1000:.1f} GB"
            for cell in cells("figure2a")
        ),
        f"kept for backward: {values}, {same} at every T from K to {last}; BPTT "
        f"{growing[first] / 1e6:.2f} MB at T {first}, {growing[last] / 1e6:.2f} MB at T {last}",
    )


def _line(point: Memory) -> int:
    """K of a point of online training; 0 for BPTT."""
    return point.chunk if point.method == "online" else 0


def _ascending(rows: Sequence[Row], quantity: Quantity) -> tuple[str, tuple[str, ...]]:
    """Whether each has more of the quantity than the one before, and why that is not decided."""
    verdicts = []
    for less, more in itertools.pairwise(rows):
        found = difference(more, less, quantity)
        sign = found.sign if found else None
        verdicts.append(OPEN if not sign else HOLDS if sign > 0 else FAILS)
        alone = found is None or found.n == 1
    verdict = _worst(verdicts)
    if verdict != OPEN:
        return verdict, ()
    if alone:
        return verdict, ("One seed decides no difference between methods.",)
    return verdict, ("The intervals of some differences include 0.",)


def _worst(verdicts: Sequence[str]) -> str:
    return next(each for each in (FAILS, OPEN, HOLDS) if each in verdicts)


def _value(row: Row, quantity: Quantity) -> float:
    return mean_of_seeds(row, quantity).value


def _text(row: Row, quantity: Quantity) -> str:
    """`84.7`, of several seeds `84.7 ± 0.3`, the half-width of the interval."""
    mean = mean_of_seeds(row, quantity)
    value = shown(mean.value, 1)
    return value if mean.half_width is None else f"{value} ± {mean.half_width:.1f}"


def _images(row: Row) -> int:
    assert row.metrics is not None
    return row.metrics.evaluation.test_images


def _label(method: str) -> str:
    return METHODS[method].label


def _paper_order(table: str, methods: Sequence[str]) -> str:
    """The paper's numbers of the first setting that has them all."""
    values: dict[str, dict[str, float]] = {}
    for cell in cells(table):
        if cell.value is not None and cell.source == cells(table)[0].source:
            values.setdefault(cell.setting, {}).setdefault(cell.method, cell.value)
    setting, found = next(item for item in values.items() if item[1].keys() >= set(methods))
    return ", ".join(f"{_label(m)} {found[m]:.2f}" for m in methods) + f" % ({setting})"
