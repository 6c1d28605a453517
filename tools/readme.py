"""Write the parts of README.md and docs/methods.md that hold results, from the committed files.

Usage: python tools/readme.py, or make readme. What has not been measured is left out.
"""

import csv
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from steadyspike.bench import tables
from steadyspike.bench.frameworks import FRAMEWORKS, FUSED
from steadyspike.bench.records import Measurement, bench_file, load
from steadyspike.errors import UserError
from steadyspike.files import write_atomically
from steadyspike.plotting import markdown_table
from steadyspike.report.comparison import ACCURACY, FIRST_STEP, RATE, Quantity
from steadyspike.report.methods import METHODS, Method, method_of
from steadyspike.report.paper import architecture_name, cells, dataset_name, paper
from steadyspike.report.statistics import Mean, paired_difference
from steadyspike.train.config import load_experiments

REPOSITORY = Path(__file__).parents[1]
#: Whose reports are shown. The second has the images of the first, with fewer seeds.
SEEDS, ROOT, CIFAR = "pipelines/seeds", ".", "pipelines/cifar10_cpu"
ONE_PROTOCOL, DECAYS = "pipelines/methods", "pipelines/weight_decay"
#: Of that protocol: the search's best combination, and what it is compared with.
CHOSEN, PAPERS = "ots-ottt", "osr_ots"
#: Data set and network of the paper's row.
PAPER_SETTING = ("cifar10", "VGGSNN")


@dataclass(frozen=True)
class Measured:
    """Accuracies in percent by method, of each seed: of all steps, and of the first step alone.

    `verdicts` are by accuracy and method, where the report compares several seeds.
    """

    setting: str
    methods: Mapping[str, Method]
    all_steps: Mapping[str, Sequence[float]]
    first_step: Mapping[str, Sequence[float]]
    verdicts: Mapping[tuple[str, str], str] = field(default_factory=dict)


def rendered(folder: Path, page: str = "README.md") -> str:
    """A page of a copy of the repository, with its parts written anew."""
    path = folder / page
    text = path.read_text(encoding="utf-8")
    for name, part in PARTS[page].items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise UserError(f"{path}: expected a line {begin.strip()} and below it {end}")
        blocks = "".join(f"{block}\n\n" for block in part(folder))
        text = f"{before}{begin}{blocks}{end}{after}"
    return text


# --- results ---


def results(folder: Path) -> list[str]:
    """The figures of each time step, and a table: what of the paper has been seen, at which size.

    The linear transform, which the paper did not train on CIFAR-10, and variants of ours are left
    to the reports.
    """
    shown = [
        name for name in (SEEDS, ROOT, CIFAR) if (folder / name / "reports/steps.csv").exists()
    ]
    if SEEDS in shown and ROOT in shown:
        shown.remove(ROOT)
    # The paper's own images first
    rows = [_of_pipeline(folder / name) for name in reversed(shown)]
    if on_a_gpu := _on_a_gpu(folder):
        rows.insert(0, on_a_gpu)
    return [*map(_figure, shown), _accuracies(rows)] if rows else []


def _of_pipeline(folder: Path) -> Measured:
    experiments = load_experiments(folder / "params.yaml")
    methods = {name: method_of(one.model) for name, one in experiments.items()}
    first, every = (
        {
            methods[name].key: list(by_seed.values())
            for name, by_seed in found.items()
            if name in methods
        }
        for found in _accuracies_of(folder / "reports")
    )
    one = next(iter(experiments.values()))
    setting = _setting(
        dataset_name(one.dataset.name),
        "VGGSNN" if getattr(one.model, "widths", None) is None else "narrow VGGSNN",
        [one.training.epochs],
        [len(seeds) for seeds in every.values()],
    )
    by_key = {method.key: method for method in methods.values()}
    verdicts = {
        (row["quantity"], methods[row["experiment"]].key): row["verdict"]
        for row in _read(folder / "reports/comparison.csv")
        if row["experiment"] in methods
    }
    return Measured(setting, by_key, every, first, verdicts)


def _accuracies_of(reports: Path) -> tuple[dict[str, dict[str, float]], ...]:
    """At inference, by experiment and seed: of the first step alone, and of all steps together.

    The report writes a seed's steps in their order.
    """
    first: dict[str, dict[str, float]] = {}
    every: dict[str, dict[str, float]] = {}
    for row in _read(reports / "steps.csv"):
        if row["statistics"] == "inference":
            name, seed = row["experiment"], row["seed"]
            first.setdefault(name, {}).setdefault(seed, float(row["step_accuracy"]))
            every.setdefault(name, {})[seed] = float(row["votes_accuracy"])
    return first, every


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _on_a_gpu(folder: Path) -> Measured | None:
    """CIFAR-10 of `make gpu-check`; of each experiment the newest run that ended."""
    all_steps: dict[str, list[float]] = {}
    first_step: dict[str, list[float]] = {}
    epochs: dict[str, int] = {}
    network = ""
    for record in gpu_checks(folder):
        rows = {row["name"]: row for row in _rows(record, "cifar10")}
        for name, row in rows.items():
            steps = rows.get(f"{name}, each step alone, %")
            key = name.partition("-")[2]
            if steps is None or key not in METHODS:
                continue
            all_steps[key] = [steps["data"]["Votes, as used"][-1]]
            first_step[key] = [steps["data"]["Alone, as used"][0]]
            epochs[key] = row["configuration"]["training"]["epochs"]
            network = architecture_name(row["configuration"]["model"]["name"])
    if not epochs:
        return None
    most = max(epochs.values())
    fewer = ", ".join(f"{METHODS[key].label} {n}" for key, n in epochs.items() if n < most)
    counts = f"{most} epochs ({fewer})" if fewer else f"{most} epochs"
    setting = f"{dataset_name('cifar10')}, {network}, {counts}, 1 seed, GPU"
    methods = {key: METHODS[key] for key in epochs}
    return Measured(setting, methods, all_steps, first_step)


def _setting(dataset: str, network: str, epochs: Sequence[int], seeds: Sequence[int]) -> str:
    several = "s" if max(seeds) > 1 else ""
    return f"{dataset}, {network}, {_range(epochs)} epochs, {_range(seeds)} seed{several}"


def _range(counts: Sequence[int]) -> str:
    """`3`, or `1 to 3` where experiments differ."""
    return " to ".join(str(each) for each in dict.fromkeys((min(counts), max(counts))))


def _figure(pipeline: str) -> str:
    place = "reports" if pipeline == ROOT else f"{pipeline}/reports"
    image = f'<img alt="Accuracy by time step and method" src="{place}/steps.svg">'
    return f'<a href="{place}/index.html">{image}</a>'


def _accuracies(measured: Sequence[Measured]) -> str:
    """A row for each setting, the paper's last, and a column for each method."""
    theirs = {
        cell.method: cell.value
        for cell in cells("table4")
        if (cell.dataset, cell.architecture) == PAPER_SETTING
    }
    dataset, network = PAPER_SETTING
    epochs = paper()["training"][dataset]["epochs"]
    methods = {key: method for each in measured for key, method in each.methods.items()}
    shown = [key for key, method in methods.items() if key != "linear" and not method.base]
    order = sorted(shown, key=lambda key: methods[key].rank)
    rows = [[each.setting, *(_both(each, key) for key in order)] for each in measured]
    quoted = [f"{value:.2f}" if (value := theirs.get(key)) else "" for key in order]
    rows.append([f"Paper: {dataset_name(dataset)}, {network}, {epochs} epochs", *quoted])
    headers = ["Accuracy, %", *(methods[key].label for key in order)]
    return markdown_table(headers, rows, ["left", *["right"] * len(order)])


def _both(measured: Measured, key: str) -> str:
    """`**84.7±0.3** (*83.9±0.4*)`: all steps, the first alone, marked by the verdict on each."""
    if key not in measured.all_steps:
        return ""
    every = _marked(measured.all_steps[key], ACCURACY, measured.verdicts.get((ACCURACY.name, key)))
    first = measured.verdicts.get((FIRST_STEP.name, key))
    return f"{every} ({_marked(measured.first_step[key], FIRST_STEP, first)})"


def _marked(values: Sequence[float], quantity: Quantity, verdict: str | None) -> str:
    """Bold if more than with vanilla BN, italic if less, plain where nothing is shown."""
    mark = {quantity.more: "**", quantity.less: "*"}.get(verdict or "", "")
    return f"{mark}{mean_and_deviation(values)}{mark}"


def mean_and_deviation(values: Sequence[float]) -> str:
    """`84.7±0.3`, with the sample standard deviation; the value alone if there is one."""
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean}±{statistics.stdev(values):.1f}" if len(values) > 1 else mean


# --- methods ---


def methods(folder: Path) -> list[str]:
    """A row for each method that was run in the one protocol, the most accurate first."""
    reports = folder / ONE_PROTOCOL / "reports"
    speed = {row["experiment"]: row for row in _read(reports / "speed.csv")}
    found: dict[str, dict[str, dict[str, str]]] = {}
    for row in _read(reports / "comparison.csv"):
        found.setdefault(row["experiment"], {})[row["quantity"]] = row
    ranked = sorted(found.values(), key=lambda of: float(of[ACCURACY.name]["mean"]), reverse=True)
    lines = []
    for of in ranked:
        row = of[ACCURACY.name]
        measured = speed.get(row["experiment"], {})
        each_step = ", updated each step" if measured.get("update") == "each step" else ""
        lines.append(
            [
                row["method"] + each_step,
                f"`{row['experiment']}`",
                _interval(row),
                _difference(row),
                _interval(of[FIRST_STEP.name]),
                _interval(of[RATE.name]),
                measured.get("kept", ""),
                measured.get("epoch", ""),
            ]
        )
    headers = ["Method", "Experiment", "Accuracy, %", "Difference", "First step alone, %"]
    headers += ["Firing rate, %", "Kept, MB", "An epoch, s"]
    table = markdown_table(headers, lines, ["left"] * 2 + ["right"] * 6)
    return [table, *_chosen(reports)] if lines else []


def _chosen(reports: Path) -> list[str]:
    """The search's best combination beside the paper's method, by paired seeds."""
    _, every = _accuracies_of(reports)
    mean = paired_difference(every.get(CHOSEN, {}), every.get(PAPERS, {}))
    found = _paired(mean)
    if mean is None or not found:
        return []
    meaning = "more than chance" if mean.sign else "no difference is shown"
    return [f"`{CHOSEN}`, ours, less `{PAPERS}`, the paper's method: {found} points, {meaning}."]


def weight_decay(folder: Path) -> list[str]:
    """A row for each method: by weight decay, and by paired seeds the least less the greatest."""
    pipeline = folder / DECAYS
    rows = [r for r in _read(pipeline / "reports/comparison.csv") if r["quantity"] == ACCURACY.name]
    if not rows:
        return []
    experiments = load_experiments(pipeline / "params.yaml")
    found: dict[str, dict[float, dict[str, str]]] = {}
    for row in rows:
        decay = experiments[row["experiment"]].training.weight_decay
        found.setdefault(row["method"], {})[decay] = row
    of_seeds = _accuracies_of(pipeline / "reports")
    decays = sorted({decay for by_decay in found.values() for decay in by_decay})
    lines = []
    for method, by_decay in found.items():
        cells = [_interval(by_decay[d]) if d in by_decay else "" for d in decays]
        least, most = (by_decay.get(d, {}).get("experiment") for d in (decays[0], decays[-1]))
        # Of the first step alone, and of all steps
        gains = [_paired(paired_difference(a.get(least, {}), a.get(most, {}))) for a in of_seeds]
        lines.append([method, *cells, *reversed(gains)])
    shown = [f"{d:.1e}".replace(".0e", "e").replace("e-0", "e-") if d else "0" for d in decays]
    less = f"{shown[0]} less {shown[-1]}"
    headers = ["Weight decay", *shown, less, f"First step alone, {less}"]
    return [markdown_table(headers, lines, ["left", *["right"] * (len(headers) - 1)])]


def _paired(mean: Mean | None) -> str:
    """A difference by paired seeds; empty without an interval."""
    if mean is None or mean.low is None or mean.high is None:
        return ""
    return _signed(mean.value, mean.low, mean.high, bold=bool(mean.sign))


def _interval(row: Mapping[str, str]) -> str:
    """`84.6 ± 0.5`, with half the width of the 95 % interval."""
    mean = f"{float(row['mean']):.1f}"
    if not row["low"]:
        return mean
    return f"{mean} ± {(float(row['high']) - float(row['low'])) / 2:.1f}"


def _difference(row: Mapping[str, str]) -> str:
    """A report's difference from the baseline; empty in the baseline's own row."""
    if not row["difference"]:
        return ""
    columns = "difference", "difference_low", "difference_high"
    beyond_chance = row["verdict"] in (ACCURACY.more, ACCURACY.less)
    return _signed(*(float(row[column]) for column in columns), bold=beyond_chance)


def _signed(difference: float, low: float, high: float, *, bold: bool) -> str:
    """`+2.1 (0.2 to 4.1)`; bold where the interval leaves out 0."""
    text = f"{difference:+.1f} ({low:.1f} to {high:.1f})".replace("-", "−")
    return f"**{text}**" if bold else text


# --- speed ---


def speed(folder: Path) -> list[str]:
    """Five rows of the benchmark, of a GPU if one was measured, and the training loop on a GPU."""
    measured, where, page = _benchmark(folder)
    if not measured:
        return []
    baseline = tables.fastest(tables.bptt_of_spikingjelly(measured) or measured)
    lines = [_speed_row(m, baseline) for m in _five(measured, baseline)]
    headers = ["", "Images/s", f"× {tables.label(baseline)}", "Peak memory, MB"]
    table = markdown_table(headers, lines, ["left", "right", "right", "right"])
    blocks = [f"{tables.title(measured)}; {where} ([all tables]({page})).", table]
    for record in reversed(gpu_checks(folder)):
        if rows := _rows(record, "loop"):
            name: str = rows[0]["name"]
            what = f"{name[0].upper()}{name[1:]} (commit {record['commit']})"
            blocks.append(f"{what}: {rows[0]['result']} ([all tables]({record['page']})).")
            break
    if measured[0].setting.device == "cuda" and (on_a_cpu := _benchmark(folder, ("cpu",)))[0]:
        blocks.append(_one_line(*on_a_cpu))
    return blocks


def _one_line(measured: Sequence[Measurement], where: str, page: str) -> str:
    """Our fastest beside the fastest BPTT of another library."""
    best = tables.fastest(m for m in measured if m.framework == FUSED.key)
    other = tables.fastest(tables.bptt_of_spikingjelly(measured))
    return (
        f"On a CPU ({where}), batch {best.setting.batch}, {best.setting.precision}: "
        f"{tables.ratio(other.seconds, best.seconds)} times {tables.label(other)} "
        f"([all tables]({page}))."
    )


def _benchmark(
    folder: Path, devices: Sequence[str] = ("cuda", "cpu")
) -> tuple[list[Measurement], str, str]:
    """The steps that were timed at the first precision, on what, and the page with all.

    Of GPU checks the newest that timed another library too.
    """
    for device in devices:
        bench = load(bench_file(folder / "docs", device))
        if bench is not None:
            group = [m for m in tables.groups(bench)[0] if m.seconds]
            machine, date = bench.machine, f"{datetime.fromisoformat(bench.date):%Y-%m-%d}"
            where = f"{machine.gpu or machine.processor}, {date}, commit {bench.commit}"
            return group, where, f"docs/bench-{device}.md"
        if device == "cuda":
            for record in reversed(gpu_checks(folder)):
                data = [row["data"] for row in _rows(record, "peers")]
                found = [Measurement.model_validate(d) for d in data if "framework" in d]
                timed = [m for m in found if m.seconds]
                if tables.bptt_of_spikingjelly(timed):
                    date = f"{datetime.fromisoformat(record['date']):%Y-%m-%d}"
                    where = f"{record['device']}, {date}, commit {record['commit']}"
                    return timed, where, record["page"]
    return [], "", ""


def _five(measured: Sequence[Measurement], baseline: Measurement) -> list[Measurement]:
    """Ours at the least and the greatest K, the baseline, and two other libraries."""
    ours = sorted((m for m in measured if m.framework == FUSED.key), key=lambda m: m.setting.chunk)
    others = [m for m in measured if m.framework in ("spikingjelly-sltt", "snntorch")]
    chosen = [*ours[:1], *ours[1:][-1:], baseline, *others]
    return [m for place, m in enumerate(chosen) if m not in chosen[:place]]


def _speed_row(m: Measurement, baseline: Measurement) -> list[str]:
    rate = statistics.median(tables.images_per_second(m))
    memory = "" if m.peak_bytes is None else f"{m.peak_bytes / tables.MEGABYTE:,.0f}"
    own = FRAMEWORKS[m.framework].package is None
    name = f"**{tables.label(m)}**" if own else tables.label(m)
    times = tables.ratio(baseline.seconds, m.seconds)
    return [name, f"{rate:,.{0 if rate >= 100 else 1}f}", times, memory]


def gpu_checks(folder: Path) -> list[dict[str, Any]]:
    """What `make gpu-check` has written to docs/runs, the oldest first."""
    records = []
    for path in sorted((folder / "docs/runs").glob("*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        records.append({**record, "page": f"docs/runs/{path.stem}.md"})
    return sorted(records, key=lambda record: str(record["date"]))


def _rows(record: dict[str, Any], part: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = record["parts"].get(part, {}).get("rows", [])
    return rows


PARTS: dict[str, dict[str, Callable[[Path], list[str]]]] = {
    "README.md": {"results": results, "speed": speed},
    "docs/methods.md": {"methods": methods, "weight decay": weight_decay},
}


if __name__ == "__main__":
    try:
        pages = {page: rendered(REPOSITORY, page) for page in PARTS}
        for page, text in pages.items():
            write_atomically(REPOSITORY / page, text)
    except UserError as error:
        sys.exit(f"readme: {error}")
