"""The tables of a report: what was measured, beside the paper's numbers."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steadyspike.evaluate.metrics import Metrics
from steadyspike.plotting import NORM_LABELS
from steadyspike.report.results import Results, Row, difference_notes, health_notes
from steadyspike.report.table import (
    NOT_MEASURED,
    NOT_REPORTED,
    NOT_RUN,
    QUOTED,
    Column,
    Table,
    Value,
)


def _always(rows: Sequence[Row]) -> bool:
    return True


@dataclass(frozen=True)
class _Field:
    """A column, a row's value in it, and whether a table of these rows has the column at all."""

    column: Column
    value: Callable[[Row], Value]
    shown: Callable[[Sequence[Row]], bool] = _always


def _differs(value: Callable[[Row], Value]) -> Callable[[Sequence[Row]], bool]:
    return lambda rows: len({value(row) for row in rows}) > 1


def _differs_within_a_dataset(value: Callable[[Row], Value]) -> Callable[[Sequence[Row]], bool]:
    """Measurements with other settings must not stand in one column without saying so."""

    def differs(rows: Sequence[Row]) -> bool:
        pairs = {(row.dataset, found) for row in rows if (found := value(row)) != ""}
        return len(pairs) > len({dataset for dataset, _ in pairs})

    return differs


def _any_comparable(rows: Sequence[Row]) -> bool:
    return any(row.comparable for row in rows)


def _steps(row: Row) -> Value:
    if row.run is None:
        return row.cell.steps or "" if row.cell else ""
    metrics = row.run.metrics
    return metrics.evaluation.steps if metrics else row.run.settings.evaluation.steps


def _batch(row: Row) -> Value:
    return row.run.metrics.evaluation.batch if row.run and row.run.metrics else ""


def _threshold(row: Row) -> Value:
    if row.run is None or row.run.metrics is None or not row.run.settings.model.stabilize_threshold:
        return ""
    return row.run.metrics.evaluation.threshold


def _seed_accuracies(row: Row, key: str) -> list[float]:
    """The last or best accuracy of each seed, in percent; none if not run."""
    if row.run is None or row.run.metrics is None:
        return []
    metrics = row.run.metrics
    return [getattr(each, key) for each in (metrics.seeds or {"": metrics.accuracy}).values()]


def _last(row: Row) -> Value:
    if row.quoted:
        return QUOTED
    metric = row.cell.metric if row.cell else "accuracy"
    if metric in ("fixed_threshold", "batch_of_one"):
        inference = row.run.metrics.inference if row.run and row.run.metrics else None
        key = "fixed" if metric == "fixed_threshold" else "batch_1"
        value: float | None = getattr(inference, key, None)
        return NOT_RUN if value is None else value
    found = _seed_accuracies(row, "last")
    return statistics.fmean(found) if found else NOT_RUN


def _best(row: Row) -> Value:
    if row.quoted:
        return QUOTED
    if row.cell and row.cell.metric in ("fixed_threshold", "batch_of_one"):
        return NOT_RUN if _last(row) == NOT_RUN else NOT_MEASURED
    found = _seed_accuracies(row, "best")
    return statistics.fmean(found) if found else NOT_RUN


def _deviation(key: str) -> Callable[[Row], Value]:
    """The sample standard deviation over seeds, which divides by n - 1."""

    def deviation(row: Row) -> Value:
        found = _seed_accuracies(row, key)
        return statistics.stdev(found) if len(found) > 1 else ""

    return deviation


def _several_seeds(rows: Sequence[Row]) -> bool:
    return any(len(_seed_accuracies(row, "last")) > 1 for row in rows)


def _rate(row: Row) -> Value:
    if row.quoted:
        return QUOTED
    if row.run is None or row.run.metrics is None:
        return NOT_RUN
    return 100 * row.run.metrics.firing_rate.gross


def _paper(row: Row) -> Value:
    return NOT_REPORTED if row.cell is None or row.cell.value is None else row.cell.value


def _difference(row: Row) -> Value:
    """Ours minus the paper's: of the best epoch where there is one, as the paper reports it."""
    if not row.comparable or row.cell is None or row.cell.value is None:
        return ""
    ours = _rate(row) if row.cell.metric == "gross_rate" else _best(row)
    ours = _last(row) if ours == NOT_MEASURED else ours
    return "" if isinstance(ours, str) else round(ours - row.cell.value, 6)


def _epochs(row: Row) -> Value:
    return "" if row.run is None else len(row.run.history or ()) or ""


def _measured(value: Callable[[Metrics], Value]) -> Callable[[Row], Value]:
    return lambda row: value(row.run.metrics) if row.run and row.run.metrics else NOT_RUN


_FIELDS = {
    field.column.key: field
    for field in (
        _Field(Column("change", "Change"), lambda row: row.cell.change if row.cell else ""),
        _Field(Column("method", "Method"), lambda row: row.method),
        _Field(
            Column("dataset", "Data set"),
            lambda row: row.dataset,
            _differs(lambda row: row.dataset),
        ),
        _Field(
            Column("network", "Network"),
            lambda row: row.network,
            _differs(lambda row: row.network),
        ),
        _Field(Column("steps", "T", 0), _steps, _differs_within_a_dataset(_steps)),
        _Field(Column("batch", "Batch", 0), _batch, _differs_within_a_dataset(_batch)),
        _Field(
            Column("threshold", "OTS threshold"), _threshold, _differs_within_a_dataset(_threshold)
        ),
        _Field(Column("experiment", "Experiment", code=True), lambda row: row.name),
        _Field(
            Column("normalization", "Normalization"),
            lambda row: NORM_LABELS[row.run.settings.model.norm] if row.run else "",
        ),
        _Field(
            Column("ots", "OTS"),
            lambda row: (
                ["no", "yes"][row.run.settings.model.stabilize_threshold] if row.run else ""
            ),
        ),
        _Field(
            Column("weight_decay", "Weight decay", 5),
            lambda row: row.run.settings.training.weight_decay if row.run else "",
        ),
        _Field(Column("accuracy_last", "Accuracy, last epoch, %", 2), _last),
        _Field(Column("accuracy_last_std", "±", 2), _deviation("last"), _several_seeds),
        _Field(Column("accuracy_best", "Accuracy, best epoch, %", 2), _best),
        _Field(Column("accuracy_best_std", "±", 2), _deviation("best"), _several_seeds),
        _Field(Column("gross_firing_rate", "Gross firing rate, %", 2), _rate),
        _Field(Column("paper", "Paper, %", 2), _paper),
        _Field(
            Column("paper_setting", "Paper's setting"),
            lambda row: row.cell.setting if row.cell else "",
            lambda rows: (
                not _any_comparable(rows)
                or any(row.run and row.cell and not row.comparable for row in rows)
            ),
        ),
        _Field(Column("difference", "Ours − paper", 2, signed=True), _difference, _any_comparable),
        _Field(
            Column("seeds", "Seeds", 0),
            lambda row: len(_seed_accuracies(row, "last")) or "",
            _any_comparable,
        ),
        _Field(Column("epochs", "Epochs", 0), _epochs, _any_comparable),
        _Field(
            Column("source", "Quoted from"),
            lambda row: (row.cell.quoted or "") if row.cell else "",
            lambda rows: any(row.quoted for row in rows),
        ),
        _Field(Column("parameters", "Parameters", 0), _measured(lambda m: m.parameters)),
        _Field(
            Column("learning_rate", "Learning rate", 4),
            lambda row: row.run.settings.training.learning_rate if row.run else "",
        ),
        _Field(Column("loss_train", "Loss, training", 4), _measured(lambda m: m.loss.train)),
        _Field(Column("loss_test", "Loss, test", 4), _measured(lambda m: m.loss.test)),
        _Field(Column("osr_fallbacks", "OSR fallbacks", 0), _measured(lambda m: m.osr_fallbacks)),
        _Field(
            Column("synaptic_operations", "Synaptic operations, M", 3),
            _measured(lambda m: m.operations.synaptic_operations / 1e6),
        ),
        _Field(
            Column("multiply_accumulates", "MACs, M", 3),
            _measured(lambda m: m.operations.multiply_accumulates / 1e6),
        ),
        _Field(
            Column("energy", "Energy, µJ", 3),
            _measured(lambda m: m.operations.energy_nanojoule / 1e3),
        ),
        _Field(
            Column("dense_multiply_accumulates", "MACs without spikes, M", 3),
            _measured(lambda m: m.operations.dense_multiply_accumulates / 1e6),
        ),
    )
}

_IDENTITY = "method dataset network steps batch threshold experiment"
_PAPER = "paper paper_setting difference"
_ACCURACY = "accuracy_last accuracy_last_std accuracy_best accuracy_best_std"

_ACCURACY_NOTE = (
    "Accuracy is top-1 on the test images. The headline is the last epoch's; the best epoch's is "
    "the highest test accuracy of any epoch, as the paper reports it."
)


def _table(
    name: str,
    title: str,
    rows: Sequence[Row],
    keys: str,
    own_notes: Sequence[str],
    groups: Sequence[str] = ("dataset", "network"),
) -> Table:
    """The table of these rows; `keys` names the columns that it may have, separated by spaces."""
    fields = [field for key in keys.split() if (field := _FIELDS[key]).shown(rows)]
    shown = [field.column.key for field in fields]
    explained = []
    if "paper_setting" in shown:
        explained.append(
            "Where the paper's setting is another data set or network, compare the order of the "
            "methods and their differences, not the values."
        )
    if "accuracy_last_std" in shown:
        explained.append("Of several seeds: mean and standard deviation (n − 1).")
    missing = [row.command for row in rows if _last(row) == NOT_RUN and row.command]
    return Table(
        name=name,
        title=title,
        columns=[field.column for field in fields],
        rows=[[field.value(row) for field in fields] for row in rows],
        notes=[*own_notes, *explained],
        commands=list(dict.fromkeys(missing)),
        groups=[key for key in groups if key in shown],
    )


def _notes(rows: Sequence[Row]) -> list[str]:
    return [*difference_notes(rows), *health_notes(rows)]


def table1(results: Results) -> Table:
    """Comparison with other work, whose results the paper quotes."""
    rows = results.rows("table1")
    return _table(
        "table1",
        "Table 1. Accuracy beside that of other work",
        rows,
        f"{_IDENTITY} {_ACCURACY} {_PAPER} seeds epochs source",
        [_ACCURACY_NOTE, *_notes(rows)],
        groups=("dataset",),
    )


def table2(results: Results) -> Table:
    """Gross firing rates."""
    rows = results.rows("table2")
    return _table(
        "table2",
        "Table 2. Gross firing rates",
        rows,
        f"{_IDENTITY} gross_firing_rate {_PAPER} epochs source",
        [
            "The gross firing rate is the share of neurons that spike, over all spiking layers, "
            "time steps and test images, with the last epoch's weights.",
            *_notes(rows),
        ],
    )


def table4(results: Results) -> Table:
    """The ablation."""
    rows = results.rows("table4")
    return _table(
        "table4",
        "Table 4. Accuracy of each normalization, with and without the threshold stabilizer",
        rows,
        f"{_IDENTITY} normalization ots weight_decay {_ACCURACY} gross_firing_rate {_PAPER} "
        "seeds epochs",
        [_ACCURACY_NOTE, *_notes(rows)],
    )


def appendix_e(results: Results) -> Table:
    """Accuracy with one choice of the method changed."""
    rows = results.rows("appendix_e")
    return _table(
        "appendix_e",
        "Appendix E. Accuracy with one choice changed",
        rows,
        f"change dataset network experiment {_ACCURACY} {_PAPER} epochs",
        [
            _ACCURACY_NOTE,
            "Both other ways to infer use the first seed's last weights. With thresholds of the "
            "whole batch the paper has 64.14 % (Table 4).",
            *_notes(rows),
        ],
    )


def operations(results: Results) -> Table:
    """Operations and energy per image at inference."""
    return _table(
        "operations",
        "Operations and energy per image at inference",
        results.measured(),
        f"{_IDENTITY} synaptic_operations multiply_accumulates energy dense_multiply_accumulates",
        [
            "Over all T steps. A synaptic operation adds one weight to one neuron because of one "
            "spike; layers whose inputs are not spikes multiply and accumulate (MAC). Energy is "
            "that of the arithmetic alone, at 0.9 pJ an addition and 4.6 pJ a MAC (45 nm, 32-bit "
            "floating point; Horowitz, ISSCC 2014). The last column counts one pass of the same "
            "network without spikes."
        ],
    )


def experiments(results: Results) -> Table:
    """Settings, size and losses of each experiment."""
    return _table(
        "experiments",
        "Experiments",
        results.measured(),
        f"{_IDENTITY} parameters learning_rate weight_decay loss_train loss_test osr_fallbacks",
        [
            "Losses are means per image in the last epoch. An OSR fallback: in training a layer "
            "used one time step's own statistics, because its running statistics were too far off."
        ],
    )
