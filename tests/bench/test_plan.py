from dataclasses import replace
from pathlib import Path

from steadyspike.bench.options import Options
from steadyspike.bench.plan import comparisons, kept_points, memory_curve

OPTIONS = Options(
    models=("vggsnn",),
    image=(3, 32, 32),
    widths=None,
    steps=(4,),
    chunks=(1, 2, 4, 8),
    batches=(32,),
    precisions=("float32", "bfloat16"),
    norms=("osr",),
    stabilize=(True,),
    memory_steps=(2, 4, 8),
    device="cpu",
    threads=2,
    repeats=5,
    turn_seconds=0.5,
    peers=True,
    pinned=False,
    data=None,
    out=Path("out"),
    readme=(),
)


def told(options: Options) -> list[tuple[str, int, str]]:
    return [
        (contender.key, setting.chunk, setting.precision)
        for group in comparisons(options)
        for contender, setting in group
    ]


def test_one_group_a_precision_with_every_chunk_and_every_peer() -> None:
    for group, precision in zip(comparisons(OPTIONS), OPTIONS.precisions, strict=True):
        assert [(contender.key, setting.chunk) for contender, setting in group] == [
            ("steadyspike", 1),
            ("steadyspike", 2),
            ("steadyspike", 4),  # and no 8: there are 4 steps
            ("steadyspike-plain", 1),
            ("spikingjelly-bptt", 4),
            ("spikingjelly-bptt-compiled", 4),
            ("spikingjelly-ottt", 1),
            ("spikingjelly-sltt", 1),
            ("snntorch", 4),
        ]
        assert {setting.precision for _, setting in group} == {precision}


def test_without_peers_our_own_bptt_stands_for_them() -> None:
    alone = told(replace(OPTIONS, peers=False, precisions=("float32",), chunks=(1,)))
    assert [key for key, _, _ in alone] == ["steadyspike", "steadyspike-plain", "steadyspike-bptt"]


def test_variants_of_the_method_are_rows_of_their_own_at_the_first_chunk() -> None:
    options = replace(OPTIONS, norms=("osr", "per_step"), stabilize=(True, False), peers=False)
    first = comparisons(options)[0]
    ours = [
        (setting.norm, setting.stabilize_threshold, setting.chunk)
        for contender, setting in first
        if contender.key == "steadyspike"
    ]
    assert ours == [
        ("osr", True, 1),
        ("osr", True, 2),
        ("osr", True, 4),
        ("osr", False, 1),
        ("per_step", True, 1),
        ("per_step", False, 1),
    ]


def test_the_pins_of_training_are_a_row_more() -> None:
    first = comparisons(replace(OPTIONS, pinned=True, threads=7))[0]
    pinned = [(c.key, s.threads) for c, s in first if s.pinned]
    assert pinned == [("steadyspike", 2)]
    assert {s.threads for _, s in first if not s.pinned} == {7}


def test_the_memory_curve_adds_what_no_comparison_has() -> None:
    curve = memory_curve(OPTIONS)
    assert {setting.steps for _, setting in curve} == {2, 8}
    for contender, setting in curve:
        assert setting.chunk == (setting.steps if contender.whole else 1)
        assert setting.precision == "float32"
    assert len(curve) == len({(contender.key, setting.steps) for contender, setting in curve})


def test_widths_are_those_of_vggsnn_alone() -> None:
    options = replace(OPTIONS, models=("resnet19", "vggsnn"), widths=(4, "P", 8))
    groups = comparisons(options)
    assert {setting.widths for group in groups[:2] for _, setting in group} == {None}
    assert {setting.widths for group in groups[2:] for _, setting in group} == {(4, "P", 8)}


def test_what_is_kept_is_counted_at_few_and_many_steps() -> None:
    points = kept_points(OPTIONS)
    assert [(c.key, s.steps, s.chunk) for c, s in points] == [
        ("steadyspike", 2, 1),
        ("steadyspike", 30, 1),
        ("steadyspike-plain", 2, 1),
        ("steadyspike-plain", 30, 1),
    ]
