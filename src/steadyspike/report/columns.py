"""The columns that tables choose from: each row's value, and when a table leaves the column out."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from steadyspike.evaluate.metrics import Measurement, Metrics
from steadyspike.report.comparison import FIRST_STEP, GAP
from steadyspike.report.methods import NORM_LABELS
from steadyspike.report.published import Published
from steadyspike.report.results import Row
from steadyspike.report.statistics import binomial_error
from steadyspike.report.table import NOT_MEASURED, NOT_REPORTED, NOT_RUN, QUOTED, Column, Value
from steadyspike.train.config import Experiment

Getter = Callable[[Row], Value]
Number = Callable[[Measurement], float | None]  # of one seed
Condition = Callable[[Sequence[Row]], bool]


@dataclass(frozen=True)
class Field:
    """A column, a row's value in it, and whether a table of these rows has the column."""

    column: Column
    value: Getter
    shown: Condition = lambda rows: True


def last_accuracy(row: Row) -> Value:
    """Of the last epoch's weights, in percent; the mean over seeds."""
    if row.quoted:
        return QUOTED
    return _mean(row, _last(row))


def _mean(row: Row, number: Number) -> Value:
    """Over the seeds that have been measured."""
    found = row.of_each_seed(number)
    return statistics.fmean(found) if found else NOT_RUN


def _last(row: Row) -> Number:
    if row.inference:
        return lambda m: getattr(m.inference, row.inference)
    return lambda m: m.accuracy.last


def _best(m: Measurement) -> float:
    return m.accuracy.best


def _best_accuracy(row: Row) -> Value:
    if row.quoted:
        return QUOTED
    if row.inference:
        return NOT_RUN if last_accuracy(row) == NOT_RUN else NOT_MEASURED
    return _mean(row, _best)


def _deviation(number: Callable[[Row], Number]) -> Getter:
    """The sample standard deviation over seeds, which divides by n - 1."""

    def deviation(row: Row) -> Value:
        found = row.of_each_seed(number(row))
        return statistics.stdev(found) if len(found) > 1 else ""

    return deviation


def _test_error(row: Row) -> Value:
    """Of the mean accuracy: half its 95 % interval, for the test images are but a sample."""
    accuracy = _mean(row, _last(row))
    if isinstance(accuracy, str) or row.metrics is None:
        return NOT_RUN
    return binomial_error(accuracy, row.metrics.evaluation.test_images)


def _rate(row: Row) -> Value:
    if row.quoted:
        return QUOTED
    return 100 * row.metrics.firing_rate.gross if row.metrics else NOT_RUN


def _difference(row: Row) -> Value:
    """Ours minus the paper's: of the best epoch where there is one, as the paper reports it."""
    if not row.comparable or row.cell is None or row.cell.value is None:
        return ""
    ours = _rate(row) if row.cell.metric == "gross_rate" else _best_accuracy(row)
    ours = last_accuracy(row) if ours == NOT_MEASURED else ours
    return "" if isinstance(ours, str) else round(ours - row.cell.value, 6)


def _steps(row: Row) -> Value:
    if row.metrics:
        return row.metrics.evaluation.steps
    if row.run:
        return row.run.settings.evaluation.steps
    return (row.cell.steps or "") if row.cell else ""


def _threshold(row: Row) -> Value:
    """Where the thresholds come from; without OTS they are constant, which is no difference."""
    threshold = row.metrics.evaluation.threshold if row.metrics else "constant"
    return "" if threshold == "constant" else threshold


def _setting(value: Callable[[Experiment], Value]) -> Getter:
    """From params.yaml."""
    return lambda row: value(row.run.settings) if row.run else ""


def _measured(value: Callable[[Metrics], Value]) -> Getter:
    """From metrics.json."""
    return lambda row: value(row.metrics) if row.metrics else NOT_RUN


def _published(value: Callable[[Published], Value]) -> Getter:
    """Of the published number beside the experiment."""
    return lambda row: value(row.published) if row.published else NOT_REPORTED


def _differs(value: Getter) -> Condition:
    return lambda rows: len({value(row) for row in rows}) > 1


def _differs_within_a_dataset(value: Getter) -> Condition:
    """Measurements with other settings must not stand in one column without saying so."""

    def differs(rows: Sequence[Row]) -> bool:
        pairs = {(row.dataset, found) for row in rows if (found := value(row)) != ""}
        return len(pairs) > len({dataset for dataset, _ in pairs})

    return differs


def _any_comparable(rows: Sequence[Row]) -> bool:
    return any(row.comparable for row in rows)


def _any_other_setting(rows: Sequence[Row]) -> bool:
    """Whether a number of the paper's stands beside an experiment of another setting."""
    others = any(row.run and row.cell and not row.comparable for row in rows)
    return others or not _any_comparable(rows)


def _several_seeds(rows: Sequence[Row]) -> bool:
    return any(len(row.by_seed) > 1 for row in rows)


def _batch(row: Row) -> Value:
    return row.metrics.evaluation.batch if row.metrics else ""


_update = _setting(lambda s: "each step" if s.training.online_update else "each batch")
_weight_decay = _setting(lambda settings: settings.training.weight_decay)

FIELDS = {
    field.column.key: field
    for field in (
        Field(Column("change", "Change"), lambda row: row.cell.change if row.cell else ""),
        Field(Column("method", "Method"), lambda row: row.method),
        Field(
            Column("dataset", "Data set"), lambda row: row.dataset, _differs(lambda r: r.dataset)
        ),
        Field(Column("network", "Network"), lambda row: row.network, _differs(lambda r: r.network)),
        Field(Column("steps", "T", 0), _steps, _differs_within_a_dataset(_steps)),
        Field(Column("batch", "Batch", 0), _batch, _differs_within_a_dataset(_batch)),
        Field(Column("update", "Update"), _update, _differs_within_a_dataset(_update)),
        Field(
            Column("threshold", "OTS threshold"), _threshold, _differs_within_a_dataset(_threshold)
        ),
        Field(Column("experiment", "Experiment", code=True), lambda row: row.name),
        Field(
            Column("normalization", "Normalization"), _setting(lambda s: NORM_LABELS[s.model.norm])
        ),
        Field(
            Column("ots", "OTS"),
            _setting(lambda s: "yes" if s.model.stabilize_threshold else "no"),
        ),
        Field(Column("parameters", "Parameters", 0), _measured(lambda m: m.parameters)),
        Field(
            Column("learning_rate", "Learning rate", 4),
            _setting(lambda s: s.training.learning_rate),
        ),
        Field(
            Column("weight_decay", "Weight decay", 5),
            _weight_decay,
            _differs(_weight_decay),
        ),
        Field(Column("accuracy_last", "Accuracy, last epoch, %", 2), last_accuracy),
        Field(Column("accuracy_last_std", "±", 2), _deviation(_last), _several_seeds),
        Field(Column("accuracy_best", "Accuracy, best epoch, %", 2), _best_accuracy),
        Field(Column("accuracy_best_std", "±", 2), _deviation(lambda _: _best), _several_seeds),
        Field(Column("test_error", "Test set's error, ±", 2), _test_error),
        Field(
            Column("first_step", "First step alone, %", 2), lambda row: _mean(row, FIRST_STEP.of)
        ),
        Field(Column("gap", "Train–inference gap, first step", 2), lambda row: _mean(row, GAP.of)),
        Field(Column("gross_firing_rate", "Gross firing rate, %", 2), _rate),
        Field(
            Column("paper", "Paper, %", 2),
            lambda row: (
                NOT_REPORTED if row.cell is None or row.cell.value is None else row.cell.value
            ),
        ),
        Field(
            Column("paper_setting", "Paper's setting"),
            lambda row: row.cell.setting if row.cell else "",
            _any_other_setting,
        ),
        Field(Column("difference", "Ours − paper", 2, signed=True), _difference, _any_comparable),
        Field(
            Column("seeds", "Seeds", 0),
            lambda row: len(row.by_seed) or "",
            _any_comparable,
        ),
        Field(
            Column("epochs", "Epochs", 0),
            lambda row: len(row.run.history or ()) or "" if row.run else "",
            _any_comparable,
        ),
        Field(
            Column("source", "Quoted from"),
            lambda row: (row.cell.quoted or "") if row.cell else "",
            lambda rows: any(row.quoted for row in rows),
        ),
        Field(Column("published", "Published, %", 2), _published(lambda p: p.value)),
        Field(Column("published_epoch", "Its epoch"), _published(lambda p: p.epoch or "not known")),
        Field(Column("published_network", "Its network"), _published(lambda p: p.network)),
        Field(Column("published_steps", "Its T", 0), _published(lambda p: p.steps)),
        Field(Column("work", "Work"), _published(lambda p: p.work)),
        Field(Column("loss_train", "Loss, training", 4), _measured(lambda m: m.loss.train)),
        Field(Column("loss_test", "Loss, test", 4), _measured(lambda m: m.loss.test)),
        Field(Column("osr_fallbacks", "OSR fallbacks", 0), _measured(lambda m: m.osr_fallbacks)),
        Field(
            Column("synaptic_operations", "Synaptic operations, M", 3),
            _measured(lambda m: m.operations.synaptic_operations / 1e6),
        ),
        Field(
            Column("multiply_accumulates", "MACs, M", 3),
            _measured(lambda m: m.operations.multiply_accumulates / 1e6),
        ),
        Field(
            Column("energy", "Energy, µJ", 3),
            _measured(lambda m: m.operations.energy_nanojoule / 1e3),
        ),
        Field(
            Column("dense_multiply_accumulates", "MACs without spikes, M", 3),
            _measured(lambda m: m.operations.dense_multiply_accumulates / 1e6),
        ),
    )
}
