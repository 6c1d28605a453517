"""Refuses to set numbers beside each other that were not measured alike.

Within a table batch and source of the thresholds are the same throughout; what may differ
stands in the table. And each number is of the experiment that params.yaml has now.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from steadyspike.errors import UserError
from steadyspike.evaluate.metrics import Evaluation
from steadyspike.report.cells import cells
from steadyspike.report.reproduction import Reproduction
from steadyspike.report.sources import Run, measuring
from steadyspike.report.tables import short


def refuse_mixed(runs: Sequence[Run]) -> None:
    """UserError unless all that was trained and measured of a pipeline may stand in one table."""
    _refuse_outdated(runs)
    _refuse_other_batch(runs)
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
        _refuse_other_batch([run for run in runs.values() if run.settings.dataset.name == name])
    _refuse_other_threshold(list(runs.values()))


def _refuse_outdated(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.digests is not None:
            trained, now = run.digests.fingerprint, run.settings.runs[0].fingerprint()
            _refuse_other_params(run, "digests.json", "fingerprint", trained, now)
        elif run.history is not None or run.metrics is not None:
            file = "metrics.json" if run.history is None else "history.csv"
            raise UserError(
                f"{run.home / file}: digests.json, which says what it is of, is not "
                f"beside it: {_anew(run)}"
            )
        if run.metrics is not None:
            seeds = [int(seed) for seed in run.metrics.seeds or [run.settings.seed]]
            _refuse_other_params(run, "metrics.json", "seeds", seeds, run.settings.seeds)
            for key, setting in Evaluation.of(run.settings):
                measured = getattr(run.metrics.evaluation, key)
                _refuse_other_params(run, "metrics.json", f"evaluation.{key}", measured, setting)


def _refuse_other_params(run: Run, file: str, key: str, then: object, now: object) -> None:
    if then != now:
        raise UserError(
            f"{run.home / file}: {key}: run with {_told(then)}, but {_params(run)} has "
            f"{_told(now)} now: {_anew(run)}, or {_leave_out(run)}"
        )


def _refuse_other_batch(runs: Sequence[Run]) -> None:
    """Of another data set, or with another batch, which statistics of a live batch depend on."""

    def remedy(one: Run, other: Run) -> str:
        names = [run.settings.dataset.name for run in (one, other)]
        return f"of {names[0]} and {names[1]}: give one of them a pipeline of its own"

    _refuse_unlike(
        runs,
        "dataset.name",
        lambda run: run.settings.dataset.name if run.metrics or run.digests else None,
        remedy,
    )
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
