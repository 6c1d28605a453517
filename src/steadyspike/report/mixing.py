"""Refuses to set numbers beside each other that were not measured alike.

Within a table data, batch and source of the thresholds are the same throughout; what may differ
stands in the table. And each number is of the experiment that params.yaml has now.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from steadyspike.errors import UserError
from steadyspike.evaluate.settings import settings_of
from steadyspike.report.cells import cells
from steadyspike.report.records import Digests, Metrics
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.sources import Run, measuring
from steadyspike.report.tables import short


def refuse_mixed(runs: Sequence[Run]) -> None:
    """UserError unless all that was trained and measured of a pipeline may stand in one table."""
    _refuse_outdated(runs)
    _refuse_other_data(runs)
    _refuse_other_threshold(runs)


def refuse_mixed_paper(work: Reproduction) -> None:
    """The same for the paper's tables, which have several data sets, each with its batch.

    A run must be of its row's data set, and of the same data as others of that set.
    """
    runs: dict[str, Run] = {}
    for cell in cells():
        run = work.run(cell)
        if run is None or run.metrics is None or cell.metric == "memory":
            continue
        expected, found = cell.paper["dataset"], run.settings.dataset.name
        if found != expected:
            raise UserError(
                f"{_params(run)}: experiments.{run.name}.dataset.name: expected {expected!r}, the "
                f"data set of its row in the paper's {cell.table}, got {found!r}: "
                f"{_leave_out(run)}"
            )
        runs[cell.run] = run
    _refuse_outdated(list(runs.values()))
    for name in dict.fromkeys(run.settings.dataset.name for run in runs.values()):
        _refuse_other_data([run for run in runs.values() if run.settings.dataset.name == name])
    _refuse_other_threshold(list(runs.values()))


def _refuse_outdated(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.digests is not None:
            trained, now = run.digests.fingerprint, run.settings.runs[0].fingerprint()
            _refuse_other_params(run, "digests.json", "fingerprint", trained, now)
        elif run.history is not None:
            raise UserError(
                f"{run.home / 'history.csv'}: digests.json, which says what it is of, is not "
                f"beside it: {_anew(run)}"
            )
        if run.metrics is not None:
            now, then = run.settings.fingerprint(), run.metrics.provenance.params
            _refuse_other_params(run, "metrics.json", "provenance.params", then, now)
            for key, setting in asdict(settings_of(run.settings)).items():
                measured = getattr(run.metrics.evaluation, key)
                _refuse_other_params(run, "metrics.json", f"evaluation.{key}", measured, setting)
        if run.metrics is not None and run.digests is not None:
            _refuse_other_training(run, run.metrics, run.digests)


def _refuse_other_params(run: Run, file: str, key: str, then: object, now: object) -> None:
    if then != now:
        raise UserError(
            f"{run.home / file}: {key}: run with {_told(then)}, but {_params(run)} has "
            f"{_told(now)} now: {_anew(run)}, or {_leave_out(run)}"
        )


def _refuse_other_training(run: Run, metrics: Metrics, digests: Digests) -> None:
    """Measured of another training than the one whose files lie beside the metrics."""
    then, now = metrics.provenance, digests.provenance
    code, environment = then.code, then.environment
    if metrics.seeds:  # the first seed's, whose digests these are, come first
        code, environment = code[: len(now.code)], environment[: len(now.environment)]
    for key, measured, trained in (
        ("code", code, now.code),
        ("data", then.data, now.data),
        ("environment", environment, now.environment),
    ):
        if measured != trained:
            raise UserError(
                f"{_file(run)} and {run.home / 'digests.json'}: provenance.{key}: measured of "
                f"{_told(measured)}, but trained since by {_told(trained)}: {_anew(run)}"
            )


def _refuse_other_data(runs: Sequence[Run]) -> None:
    """Of different data, or with another batch, which statistics of a live batch depend on."""

    def remedy(one: Run, other: Run) -> str:
        names = [run.settings.dataset.name for run in (one, other)]
        if names[0] == names[1]:
            return f"{_anew(one, other)}, of the data that are here now"
        return f"of {names[0]} and {names[1]}: give one of them a pipeline of its own"

    def data_of(run: Run) -> str | None:
        found = run.metrics or run.digests
        return found.provenance.data if found else None

    _refuse_unlike(runs, "provenance.data", data_of, remedy)
    _refuse_unlike(
        runs,
        "evaluation.batch",
        lambda run: run.metrics.evaluation.batch if run.metrics else None,
        _alike("evaluation.batch"),
    )


def _refuse_other_threshold(runs: Sequence[Run]) -> None:
    """Of OTS; whether there is OTS at all is a column of the tables."""
    _refuse_unlike(
        [run for run in runs if run.settings.model.stabilize_threshold],
        "evaluation.threshold",
        lambda run: run.metrics.evaluation.threshold if run.metrics else None,
        _alike("model.inference_threshold"),
    )


def _refuse_unlike(
    runs: Sequence[Run],
    key: str,
    value_of: Callable[[Run], object],
    remedy: Callable[[Run, Run], str],
) -> None:
    """Unless `value_of` is one for all runs of which it is known."""
    known = [(run, value) for run in runs if (value := value_of(run)) is not None]
    for run, found in known:
        first, expected = known[0]
        if found != expected:
            raise UserError(
                f"{_file(first)} and {_file(run)}: {key}: expected one for a whole table, "
                f"found {_told(expected)} and {_told(found)}: {remedy(first, run)}"
            )


def _alike(key: str) -> Callable[[Run, Run], str]:
    def remedy(one: Run, other: Run) -> str:
        where = " and ".join(dict.fromkeys(str(_params(run)) for run in (one, other)))
        return f"give both the same {key} in {where}, then {_anew(one, other)}"

    return remedy


def _told(value: object) -> str:
    """A value as the message shows it; of SHA-256 sums so much as tells them apart."""
    if isinstance(value, list):
        return ", then ".join(map(short, value))
    return short(value) if isinstance(value, str) else str(value)


def _anew(*runs: Run) -> str:
    """The command, to be given where the report was asked for, that brings these up to date."""
    folders: dict[Path, list[str]] = {}
    for run in runs:
        folders.setdefault(run.home.parents[1], []).append(run.name)
    commands = [measuring(names, folder) for folder, names in folders.items()]
    return f"`{' && '.join(commands)}` trains and measures anew"


def _leave_out(run: Run) -> str:
    return f"remove {run.home}, and it counts as not run"


def _file(run: Run) -> Path:
    return run.home / ("metrics.json" if run.metrics else "digests.json")


def _params(run: Run) -> Path:
    return run.home.parents[1] / "params.yaml"
