"""From the options to what is measured, and beside whom."""

from itertools import product

from steadyspike.bench.contenders import BPTT, FUSED, PEERS, PLAIN, Contender
from steadyspike.bench.options import Options
from steadyspike.bench.setting import Setting

Entry = tuple[Contender, Setting]

KEPT_STEPS = (2, 30)  # T between which what is kept for backward must not differ
KEPT_BATCH = 2


def comparisons(options: Options) -> list[list[Entry]]:
    """Groups whose members take turns: each network, batch, T and precision is one."""
    grid = product(options.models, options.batches, options.steps, options.precisions)
    return [
        _group(options, _setting(options, model, batch, steps, precision))
        for model, batch, steps, precision in grid
    ]


def memory_curve(options: Options) -> list[Entry]:
    """Contenders at the values of T that no comparison has: their peak memory is measured."""
    first = _setting(
        options, options.models[0], options.batches[0], options.steps[0], options.precisions[0]
    )
    contenders = (FUSED, *(PEERS if options.peers else (BPTT,)))
    return [
        (contender, first.but(steps=steps, chunk=_chunk(contender, options, steps)))
        for contender in contenders
        for steps in options.memory_steps
        if contender.curve and steps not in options.steps
    ]


def kept_points(options: Options) -> list[Entry]:
    """Our own at few and many steps, of a small batch, to count what is kept for backward."""
    first = _setting(options, options.models[0], KEPT_BATCH, KEPT_STEPS[0], options.precisions[0])
    return [
        (contender, first.but(steps=steps, chunk=1))
        for contender in (FUSED, PLAIN)
        for steps in KEPT_STEPS
    ]


def _setting(options: Options, model: str, batch: int, steps: int, precision: str) -> Setting:
    return Setting.model_validate(
        {
            "model": model,
            "image": options.image,
            "widths": options.widths if model == "vggsnn" else None,
            "norm": options.norms[0],
            "stabilize_threshold": options.stabilize[0],
            "steps": steps,
            "chunk": 1,
            "batch": batch,
            "precision": precision,
            "device": options.device,
            "threads": options.threads,
        }
    )


def _group(options: Options, base: Setting) -> list[Entry]:
    chunks = [chunk for chunk in options.chunks if chunk <= base.steps] or [1]
    entries: list[Entry] = []
    for place, (norm, stabilize) in enumerate(product(options.norms, options.stabilize)):
        for chunk in chunks if place == 0 else chunks[:1]:
            changed = base.but(norm=norm, stabilize_threshold=stabilize, chunk=chunk)
            entries.append((FUSED, changed))
    first = base.but(chunk=chunks[0])
    entries.append((PLAIN, first))
    if options.pinned:
        entries.append((FUSED, first.but(pinned=True, threads=2)))
    others = PEERS if options.peers else (BPTT,)
    entries += [(other, base.but(chunk=base.steps if other.whole else 1)) for other in others]
    return entries


def _chunk(contender: Contender, options: Options, steps: int) -> int:
    return steps if contender.whole else min(options.chunks[0], steps)
