"""What the report says of the paper's claims, from made-up runs whose answer is known."""

from pathlib import Path
from typing import Any

import pytest

from report import samples
from steadyspike.report import write_report
from steadyspike.report.claims import FAILS, HOLDS, OPEN, Claim, claims, summary
from steadyspike.report.results import Results
from tiny import change_json

ORDER = "OSR is more accurate than vanilla BN, and OSR + OTS than OSR"
ONE_FUNCTION = "training and inference are one function with OSR, not with BN"
FEWER = "OSR + OTS fires least, then OTS, vanilla BN and OSR"
STEADY = "OTS keeps the firing rate steady over the steps"
FLAT = "the memory of online training does not grow with T"

RISING = {"per_step": 80.0, "osr": 82.0, "osr_ots": 84.0}
NOISE = (-0.3, 0.0, 0.3)  # of each seed, the same for all methods but for a tenth


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    return samples.write_pipeline(tmp_path)


def verdicts(pipeline: Path) -> dict[str, Claim]:
    return {claim.name: claim for claim in claims(Results.of_pipeline(pipeline))}


def measured(pipeline: Path, name: str, **changes: Any) -> None:
    """Change the measurement of every seed of an experiment."""

    def change(metrics: dict[str, Any]) -> None:
        for each in (metrics, *metrics.get("seeds", {}).values()):
            each |= changes

    change_json(pipeline / "runs" / name / "metrics.json", change)


def with_seeds(pipeline: Path, accuracies: dict[str, float]) -> None:
    for place, (name, accuracy) in enumerate(accuracies.items()):
        seeds = [accuracy + noise * (1 + place / 10) for noise in NOISE]
        samples.write_run(pipeline, name, [(each, each) for each in seeds])


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [
        (RISING, HOLDS),
        (RISING | {"osr": 79.0}, FAILS),  # less accurate than vanilla BN
        (RISING | {"osr_ots": 82.0}, OPEN),  # as accurate as OSR
        (RISING | {"osr": 79.0, "osr_ots": 79.0}, FAILS),
    ],
)
def test_the_order_of_accuracies(
    accuracies: dict[str, float], verdict: str, pipeline: Path
) -> None:
    with_seeds(pipeline, accuracies)
    found = verdicts(pipeline)[ORDER]
    assert found.verdict == verdict
    assert "vanilla BN 80.0 ± 0.7" in found.measured  # 4.303 * 0.3 / √3
    assert "vanilla BN 92.60, OSR 94.05, OSR + OTS 94.35 % (CIFAR-10, VGGSNN)" in found.paper


def test_one_seed_decides_no_difference_between_methods(pipeline: Path) -> None:
    found = verdicts(pipeline)
    for name in (ORDER, FEWER, STEADY):
        assert found[name].verdict == OPEN
        assert "One seed" in found[name].why
    # Vanilla BN: 10 % at the first step, 71.2 % by all votes
    assert "first step alone is right for 10.0 %" in found[ORDER].why


def steps_of(used: float, trained: float) -> dict[str, Any]:
    def of(first: float) -> dict[str, list[float]]:
        values = [first, 70.0, 80.0, 85.0]
        return {"step_accuracy": values, "votes_accuracy": values}

    return {"inference": of(used), "batch": of(trained)}


@pytest.mark.parametrize(
    ("gaps", "verdict"),
    [
        ({"per_step": 50.0, "bptt": 40.0, "osr": 0.0, "osr_ots": 0.0}, HOLDS),
        ({"per_step": 50.0, "bptt": 40.0, "osr": 3.0, "osr_ots": 0.0}, FAILS),
        ({"per_step": 1.0, "bptt": 40.0, "osr": 0.0, "osr_ots": 0.0}, FAILS),  # within its error
    ],
)
@pytest.mark.parametrize("ots", [1.0, 30.0])
def test_training_and_inference(
    gaps: dict[str, float], verdict: str, ots: float, pipeline: Path
) -> None:
    for name, gap in {**gaps, "ots": ots}.items():
        measured(pipeline, name, after_steps=steps_of(30.0, 30.0 + gap))
    found = verdicts(pipeline)[ONE_FUNCTION]
    assert found.verdict == verdict
    assert ("OTS alone closes" in found.why) == (gaps["per_step"] > 5 * ots)


def test_firing_rates(pipeline: Path) -> None:
    rates = {"osr_ots": (16, 0), "ots": (19, 0), "per_step": (22, 14), "osr": (27, 11)}
    with_seeds(pipeline, dict.fromkeys(rates, 80.0))
    for name, (gross, spread) in rates.items():
        steps = [gross / 100, (gross + spread) / 100]
        measured(pipeline, name, firing_rate={"gross": gross / 100, "per_step": steps})
    found = verdicts(pipeline)
    assert (found[FEWER].verdict, found[STEADY].verdict) == (HOLDS, HOLDS)
    assert found[STEADY].paper == "Figure 2b: vanilla BN 14, OTS 0, OSR 11, OSR + OTS 1"
    measured(pipeline, "ots", firing_rate={"gross": 0.15, "per_step": [0.0, 0.3]})
    found = verdicts(pipeline)
    assert (found[FEWER].verdict, found[STEADY].verdict) == (FAILS, FAILS)


def test_memory(pipeline: Path) -> None:
    flat = verdicts(pipeline)[FLAT]
    assert flat.verdict == HOLDS
    assert ", the same at every T from K to 30; " in flat.measured
    path = pipeline / "runs" / "memory.csv"
    text = path.read_text()
    path.write_text(text.replace("online,1,30,61234567", "online,1,30,61234568"))
    grown = verdicts(pipeline)[FLAT]
    assert grown.verdict == FAILS
    assert ", not the same at every T from K to 30; " in grown.measured
    path.unlink()
    assert FLAT not in verdicts(pipeline)


def test_a_claim_needs_its_methods(tmp_path: Path) -> None:
    folder = samples.write_pipeline(tmp_path, leave_out=("per_step", "bptt"))
    assert verdicts(folder).keys() == {STEADY, FLAT}
    assert verdicts(folder)[STEADY].measured.count(",") == 1  # OSR and OSR + OTS alone


def test_what_does_not_hold_comes_first(pipeline: Path) -> None:
    with_seeds(pipeline, RISING | {"osr": 79.0})
    sentences = summary(claims(Results.of_pipeline(pipeline)))
    assert sentences[0].startswith(f"Does not hold here: {ORDER} (vanilla BN 80.0 ± 0.7")
    assert sentences[-1].startswith("Holds here: ")
    write_report(pipeline, pipeline / "out")
    page = (pipeline / "out" / "index.html").read_text()
    assert page.index(sentences[0][:60]) < page.index('id="steps"')
