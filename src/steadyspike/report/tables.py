"""The tables of a report: what was measured, beside the paper's numbers."""

from collections.abc import Sequence

from steadyspike.report.columns import FIELDS, Field, last_accuracy
from steadyspike.report.paper import cells
from steadyspike.report.results import (
    Results,
    Row,
    difference_notes,
    health_notes,
    held_out_notes,
    published_notes,
)
from steadyspike.report.table import MARK, NOT_RUN, Marked, Table, Value

_IDENTITY = "method dataset network steps batch update threshold experiment"
_PAPER = "paper paper_setting difference"
_ACCURACY = "accuracy_last accuracy_last_std accuracy_best accuracy_best_std"

#: Columns of what training decides and the paper reports.
_TRAINED = ("accuracy_last", "accuracy_best", "gross_firing_rate", "difference")

_ACCURACY_NOTE = (
    "Accuracy is top-1 on the test images. The headline is the last epoch's; the best epoch's is "
    "the highest test accuracy of any epoch, as the paper reports it."
)
_TEST_ERROR_NOTE = (
    "The test set's error: half the width of the 95 % interval that this number of test images "
    "leaves (binomial)."
)

_GAP_NOTE = (
    "The train–inference gap: how many percentage points more accurate the first step's own output "
    "is if norms normalize the test images as they normalized the training images. Vanilla BN and "
    "BN then take the statistics of the batch at hand; OSR and the linear transform train by the "
    "running statistics that they infer by."
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
    fields = [field for key in keys.split() if (field := FIELDS[key]).shown(rows)]
    shown = [field.column.key for field in fields]
    explained = []
    if "paper_setting" in shown:
        explained.append(
            "Where the paper's setting is another data set or network, compare the order of the "
            "methods and their differences, not the values."
        )
    if "accuracy_last_std" in shown:
        explained.append("Of several seeds: mean and standard deviation (n − 1).")
    values = [[_value(field, row) for field in fields] for row in rows]
    if any(isinstance(value, Marked) for line in values for value in line):
        fewer = {row.name: row.fewer_epochs for row in rows if row.fewer_epochs}
        listed = ", ".join(f"{name} {epochs}" for name, epochs in fewer.items())
        explained.append(f"{MARK} Trained for fewer epochs than the paper: {listed}.")
    missing = [row.command for row in rows if last_accuracy(row) == NOT_RUN and row.command]
    return Table(
        name=name,
        title=title,
        columns=[field.column for field in fields],
        rows=values,
        notes=[*own_notes, *explained],
        commands=list(dict.fromkeys(missing)),
        groups=[key for key in groups if key in shown],
    )


def _value(field: Field, row: Row) -> Value:
    """A row's value; what training decides is marked if it was shorter than the paper's."""
    value = field.value(row)
    trained = field.column.key in _TRAINED and isinstance(value, float)
    return Marked(value) if trained and row.fewer_epochs else value


def _notes(rows: Sequence[Row]) -> list[str]:
    return [*held_out_notes(rows), *difference_notes(rows), *health_notes(rows)]


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
        f"{_IDENTITY} weight_decay {_ACCURACY} test_error first_step gap "
        f"gross_firing_rate {_PAPER} seeds epochs",
        [_ACCURACY_NOTE, _TEST_ERROR_NOTE, _GAP_NOTE, *_notes(rows)],
    )


def published(results: Results) -> Table:
    """Experiments beside what other works publish of the same rule and norm."""
    rows = results.published()
    return _table(
        "published",
        "Published results, each by its own protocol",
        rows,
        f"{_IDENTITY} {_ACCURACY} published published_epoch published_network published_steps work",
        [
            "A published number was reached by another protocol than ours beside it, so no "
            "difference of the two is given. Named below is where ours differs from the work's "
            "own, as far as its paper or code was read. The paper's own numbers are in Table 4.",
            *held_out_notes(rows),
            *published_notes(rows),
        ],
    )


def appendix_e(results: Results) -> Table:
    """Accuracy with one choice of the method changed."""
    rows = results.rows("appendix_e")
    live = next(
        cell.value
        for cell in cells("table4")
        if (cell.setting, cell.method) == ("ImageNet, SEW-ResNet-34", "osr_ots")
    )
    return _table(
        "appendix_e",
        "Appendix E. Accuracy with one choice changed",
        rows,
        f"change dataset network experiment {_ACCURACY} {_PAPER} epochs",
        [
            _ACCURACY_NOTE,
            "Both other ways to infer use the first seed's last weights. With thresholds of the "
            f"whole batch the paper has {live:.2f} % on ImageNet (Table 4).",
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
        f"{_IDENTITY} normalization ots parameters learning_rate weight_decay loss_train loss_test "
        "osr_fallbacks",
        [
            "Losses are means per image in the last epoch. An OSR fallback: in training a layer "
            "used one time step's own statistics, because its running statistics were too far off."
        ],
    )
