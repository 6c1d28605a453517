"""Sentences that a reader needs before trusting numbers; none where there is nothing to warn of."""

from collections.abc import Callable, Iterable, Sequence

from steadyspike.report.findings import listed
from steadyspike.report.sources import Run
from steadyspike.train.history import EpochRow

Named = tuple[str, Run]  # an experiment by the name that a table has for it

MOST_VARIANCE = 1_000_000  # steadyspike.train.health's: over it a running variance is exploding
_MOST_LAYERS = 6  # named in one sentence


def named(runs: Iterable[Run]) -> list[Named]:
    """The experiments of one pipeline by their labels."""
    return [(run.label, run) for run in runs]


def caveats(runs: Sequence[Named]) -> list[str]:
    """All that there is to say of experiments that stand in one table."""
    return layers(runs)


def layers(runs: Sequence[Named]) -> list[str]:
    """Which layers fell silent or exploded, and in which epochs, of every seed."""
    sentences = []
    for name, run in runs:
        seeds = {name: run.history or ()}
        seeds |= {f"{name}, seed {seed}": rows for seed, rows in run.other_seeds.items()}
        for who, history in seeds.items():
            silent = _affected(history, lambda epoch: epoch.silent_layers)
            exploding = _affected(history, lambda epoch: epoch.exploding_layers)
            if silent:
                sentences.append(
                    f"{who}: not one spike in a whole epoch of training from {silent}."
                )
            if exploding:
                sentences.append(
                    f"{who}: a running variance over {MOST_VARIANCE:,}, where about 1 is usual, "
                    f"in {exploding}."
                )
    return sentences


def _affected(history: Sequence[EpochRow], layers_of: Callable[[EpochRow], Sequence[str]]) -> str:
    """Layers and their epochs: `layers.1 and layers.2 (epoch 3) and layers.5 (epochs 3 to 9)`."""
    epochs: dict[str, list[int]] = {}
    for row in history:
        for layer in layers_of(row):
            epochs.setdefault(layer, []).append(row.epoch)
    alike: dict[str, list[str]] = {}
    for layer, found in list(epochs.items())[:_MOST_LAYERS]:
        alike.setdefault(spans(found), []).append(layer)
    words = [f"{listed(found)} ({when})" for when, found in alike.items()]
    more = len(epochs) - _MOST_LAYERS
    if more > 0:
        words.append(f"{more} more {'layer' if more == 1 else 'layers'}")
    return listed(words)


def spans(epochs: Sequence[int]) -> str:
    """Epochs in rising order as words: `epoch 3`, `epochs 1, 2 and 4 to 9`."""
    parts: list[list[int]] = []
    for epoch in epochs:
        if parts and epoch == parts[-1][-1] + 1:
            parts[-1].append(epoch)
        else:
            parts.append([epoch])
    words = [
        word
        for part in parts
        for word in ([f"{part[0]} to {part[-1]}"] if len(part) > 2 else map(str, part))
    ]
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {listed(words)}"
