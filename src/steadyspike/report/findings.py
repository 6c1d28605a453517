"""Sentences about the measurements, each computed from the numbers that it names.

Every function returns nothing where there is nothing to say. Numbers are compared as they are
shown, so that a sentence and a table never disagree.
"""

from collections.abc import Callable, Sequence

from steadyspike.evaluate.metrics import Layers, Memory, Metrics
from steadyspike.report.paper import ablation_accuracy, architecture_name
from steadyspike.report.sources import Pipeline, Run
from steadyspike.report.tables import fixed, signed

Named = tuple[str, float]


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _extreme(values: Sequence[Named], highest: bool) -> tuple[str, float]:
    """All names that share the highest or lowest value, and the value."""
    best = (max if highest else min)(value for _, value in values)
    return listed([name for name, value in values if value == best]), best


def _measured(pipeline: Pipeline) -> list[tuple[Run, Metrics]]:
    return [(run, run.metrics) for run in pipeline.runs if run.metrics is not None]


def _vanilla(values: Sequence[tuple[Run, float]]) -> tuple[float | None, list[Named]]:
    """The value of the one vanilla BN run, if there is just one, and the others' by label."""
    base = [value for run, value in values if run.method.key == "per_step"]
    others = [(run.label, value) for run, value in values if run.method.key != "per_step"]
    return (base[0] if len(base) == 1 else None), others


def each_network(say: Callable[[Pipeline], list[str]], pipeline: Pipeline) -> list[str]:
    """What is to be said of a pipeline; where it has several networks, of each in turn."""
    networks = pipeline.networks
    if len(networks) == 1:
        return say(pipeline)
    return [
        f"{architecture_name(part.runs[0].settings.model.name)}: {sentence}"
        for part in networks
        for sentence in say(part)
    ]


def accuracy(pipeline: Pipeline) -> list[str]:
    """Which method ends highest, what each changes against vanilla BN, and the paper's order."""
    values = [(run, round(metrics.accuracy.last, 2)) for run, metrics in _measured(pipeline)]
    named = [(run.label, value) for run, value in values]
    if not named:
        return []
    if len(named) == 1:
        return [f"{named[0][0]} ends at {fixed(named[0][1], 2)} %; nothing else has been run."]
    (top, high), (bottom, low) = _extreme(named, True), _extreme(named, False)
    if high == low:
        sentences = [f"All {len(named)} experiments end at the same accuracy, {fixed(high, 2)} %."]
    else:
        sentences = [
            f"The highest accuracy after the last epoch is {fixed(high, 2)} % ({top}), the lowest "
            f"{fixed(low, 2)} % ({bottom})."
        ]
    base, others = _vanilla(values)
    if base is not None and others:
        changes = listed([f"{label} {signed(fixed(value - base, 2))}" for label, value in others])
        sentences.append(f"Against vanilla BN, in points: {changes}.")
    return sentences + _paper_order(values)


def _paper_order(values: Sequence[tuple[Run, float]]) -> list[str]:
    """Whether the methods rank here as they do in the paper, where it ran them on one setting."""
    pairs = []
    for run, value in values:
        model = run.settings.model.name
        reported = ablation_accuracy(
            run.method.key, run.settings.dataset.name, model, run.settings.training.weight_decay
        )
        if reported and reported.source == "Table 4":
            pairs.append((run.label, value, reported))
    settings = {reported.setting for _, _, reported in pairs}
    if len(pairs) < 2 or len(settings) > 1 or len({value for _, value, _ in pairs}) < len(pairs):
        return []
    there = [label for label, _, _ in sorted(pairs, key=lambda pair: pair[2].value)]
    here = [label for label, _, _ in sorted(pairs, key=lambda pair: pair[1])]
    verdict = "the same" if here == there else " < ".join(here)
    return [f"The paper's order on {settings.pop()} is {' < '.join(there)}; here it is {verdict}."]


def gross_rates(pipeline: Pipeline) -> list[str]:
    """Which method fires most and least, and what each changes against vanilla BN."""
    values = [
        (run, round(100 * metrics.firing_rate.gross, 2)) for run, metrics in _measured(pipeline)
    ]
    named = [(run.label, value) for run, value in values]
    if len(named) < 2:
        return []
    (top, high), (bottom, low) = _extreme(named, True), _extreme(named, False)
    if high == low:
        return [f"All experiments fire at the same rate, {fixed(high, 2)} %."]
    sentences = [
        f"The lowest gross rate is {fixed(low, 2)} % ({bottom}), the highest {fixed(high, 2)} % "
        f"({top})."
    ]
    base, others = _vanilla(values)
    if base and others:
        changes = listed(
            [
                f"{label} fires {fixed(abs(value / base - 1) * 100, 0)} % "
                f"{'more' if value >= base else 'less'}"
                for label, value in others
            ]
        )
        sentences.append(f"Compared with vanilla BN, {changes}.")
    return sentences


def step_rates(pipeline: Pipeline) -> list[str]:
    """How far each method's firing rate moves between time steps."""
    spreads = []
    for run, metrics in _measured(pipeline):
        rates = [round(100 * rate, 2) for rate in metrics.firing_rate.per_step]
        spreads.append((run.label, round(max(rates) - min(rates), 2)))
    if not spreads:
        return []
    spans = listed([f"{label} {fixed(spread, 2)}" for label, spread in spreads])
    sentences = [f"Highest minus lowest step, in points: {spans}."]
    (steady, low), (moving, high) = _extreme(spreads, False), _extreme(spreads, True)
    if low < high:
        sentences.append(f"The rate is steadiest over time with {steady}, and least with {moving}.")
    return sentences


def memory(points: Sequence[Memory] | None) -> list[str]:
    """What online training and BPTT keep at the fewest and the most steps, and their ratio."""
    sentences = []
    ends = {}
    for method, label in (("online", "Online training"), ("bptt", "BPTT")):
        line = sorted((p.steps, p.bytes) for p in points or () if p.method == method)
        if not line:
            continue
        (first, low), (last, high) = line[0], line[-1]
        ends[method] = line[-1]
        if first == last:
            sentences.append(f"{label} keeps {_megabytes(low)} at T = {first}.")
        elif low == high:
            sentences.append(f"{label} keeps {_megabytes(low)} at both T = {first} and T = {last}.")
        else:
            sentences.append(
                f"{label} keeps {_megabytes(low)} at T = {first} and {_megabytes(high)} at "
                f"T = {last}."
            )
    if len(ends) == 2 and ends["online"][0] == ends["bptt"][0] and ends["online"][1]:
        ratio = fixed(ends["bptt"][1] / ends["online"][1], 1)
        sentences.append(
            f"At T = {ends['online'][0]} BPTT keeps {ratio} times what online training keeps."
        )
    return sentences


def _megabytes(count: int) -> str:
    return f"{fixed(count / 1e6, 1)} MB"


def membranes(measured: Layers) -> list[str]:
    """Where the potentials and thresholds lie, over all layers and steps."""
    means = [round(value, 2) for layer in measured.layers for value in layer.mean]
    stds = [round(value, 2) for layer in measured.layers for value in layer.std]
    marks = [round(value, 2) for layer in measured.layers for value in layer.threshold]
    outside = sum(sum(layer.below) + sum(layer.above) for layer in measured.layers)
    inside = sum(sum(map(sum, layer.counts)) for layer in measured.layers)
    moved = [
        (layer.name, round(max(layer.threshold) - min(layer.threshold), 2))
        for layer in measured.layers
    ]
    layer, most = _extreme(moved, True)
    sentences = [
        f"Over all layers and steps the mean potential lies between {_range(means)}, the standard "
        f"deviation between {_range(stds)} and the threshold between {_range(marks)}."
    ]
    if most > 0:
        sentences.append(f"The threshold moves most over time in {layer}, by {fixed(most, 2)}.")
    if inside + outside:
        share = 100 * outside / (inside + outside)
        shown = "Less than 0.01" if 0 < share < 0.01 else "None" if not share else fixed(share, 2)
        unit = " %" if share else ""
        sentences.append(f"{shown}{unit} of the potentials lie outside the range that is drawn.")
    return sentences


def _range(values: Sequence[float]) -> str:
    low, high = (fixed(value, 2).replace("-", "−") for value in (min(values), max(values)))
    return f"{low} and {high}"


def training(pipeline: Pipeline) -> list[str]:
    """The last epoch's lowest loss and widest gap between training and test accuracy."""
    last = [(run.label, run.history[-1]) for run in pipeline.runs if run.history]
    if not last:
        return []
    losses = [(label, round(epoch.train_loss, 3)) for label, epoch in last]
    gaps = [(label, round(epoch.train_accuracy - epoch.test_accuracy, 2)) for label, epoch in last]
    (lowest, loss), (widest, gap) = _extreme(losses, False), _extreme(gaps, True)
    sentences = [f"The lowest training loss at the end is {fixed(loss, 3)} ({lowest})."]
    if gap > 0:
        sentences.append(
            f"Training accuracy is furthest above test accuracy with {widest}, by "
            f"{fixed(gap, 2)} points."
        )
    return sentences
