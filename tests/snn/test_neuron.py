"""LIF's membrane and spikes: stored numbers, values by hand, dropout, arguments."""

import math
from typing import Any

import pytest
import torch

from golden import assert_golden, described, load
from snn.neurons import both_resets, present, steps
from steadyspike import sequence
from steadyspike.snn.neuron import LIF

GOLDEN = load("ots_neuron")


@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (2, 2), (3, 1), (4,)], ids=str)
@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda case: "ots" if case["threshold_stabilizer"] else "plain"
)
def test_golden(case: dict[str, Any], chunks: tuple[int, ...]) -> None:
    lif = LIF(stabilize_threshold=case["threshold_stabilizer"]).double()
    first = 0
    with sequence(lif, steps=4):
        for k in chunks:
            stored = case["steps"][first : first + k]
            where = f"steps {first} to {first + k - 1}:"
            currents = torch.stack([described(case["shape"], s["current"]) for s in stored])
            currents.requires_grad_()
            spikes = lif(currents)
            upstream = [described(case["shape"], step["grad_spike"]) for step in stored]
            spikes.backward(torch.stack(upstream))
            assert currents.grad is not None
            assert lif.membrane is not None
            assert spikes.flatten().tolist() == [v for s in stored for v in s["spike"]], where
            assert_golden(
                currents.grad, [v for s in stored for v in s["grad_current"]], f"{where} gradient"
            )
            assert_golden(lif.threshold, stored[-1]["threshold"], f"{where} threshold")
            assert_golden(lif.membrane, stored[-1]["membrane_after_reset"], f"{where} membrane")
            first += k


# --- membrane, by hand ---


@pytest.mark.parametrize(
    ("reset", "spikes", "membranes"),
    [
        # u: 0.5; 0.25 + 1 = 1.25 fires; 0.125 + 0.5 = 0.625; 0.3125 + 2 = 2.3125 fires
        ("subtract", [0, 1, 0, 1], [0.5, 0.25, 0.625, 1.3125]),
        # u: 0.5; 0.25 + 1 = 1.25 fires; 0 + 0.5 = 0.5; 0.25 + 2 = 2.25 fires
        ("zero", [0, 1, 0, 1], [0.5, 0, 0.5, 0]),
    ],
)
def test_membrane(reset: str, spikes: list[int], membranes: list[float]) -> None:
    lif = LIF(reset=reset)
    with sequence(lif, steps=4):
        for current, spike, membrane in zip([0.5, 1, 0.5, 2], spikes, membranes, strict=True):
            assert lif(torch.tensor([[float(current)]])).item() == spike
            assert lif.membrane is not None
            assert lif.membrane.tolist() == [membrane]
            assert lif.threshold.item() == 1


def test_leak_and_threshold_are_those_given() -> None:
    # τ = 4 keeps 3/4: u = 1; 0.75 + 0.75 = 1.5 fires exactly at the threshold; 0.75 · 0 + 1
    lif = LIF(tau=4.0, v_threshold=1.5)
    spikes, _ = present(lif, steps([1.0], [0.75], [1.0]))
    assert spikes.flatten().tolist() == [0, 1, 0]
    assert lif.membrane is not None
    assert lif.membrane.tolist() == [1.0]


def test_tau_of_one_forgets_everything() -> None:
    spikes, _ = present(LIF(tau=1.0), steps([0.9], [0.9], [1.0]))
    assert spikes.flatten().tolist() == [0, 0, 1]


def test_each_presentation_starts_from_zero() -> None:
    lif = LIF(stabilize_threshold=True).double()
    x = torch.randn(3, 2, 5, dtype=torch.float64)
    first = present(lif, x, [1, 2])
    second = present(lif, x, [1, 2])
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]


@both_resets
def test_membrane_and_spikes_do_not_share_memory_with_the_currents(reset: str) -> None:
    lif = LIF(reset=reset)
    currents = torch.tensor([[0.5, 2.0]])
    with sequence(lif, steps=2):
        spikes = lif(currents)
        assert lif.membrane is not None
        before = lif.membrane.clone()
        currents.fill_(9)  # a caller may use its buffer again
        assert torch.equal(lif.membrane, before)
        assert spikes.tolist() == [[0, 1]]
        spikes.fill_(9)
        assert torch.equal(lif.membrane, before)
        lif(torch.zeros(1, 2))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 5), (2, 3, 5, 3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("ots", [False, True])
def test_shapes_and_dtypes(shape: tuple[int, ...], dtype: torch.dtype, ots: bool) -> None:
    lif = LIF(stabilize_threshold=ots).to(dtype)
    x = (torch.randn(4, *shape) + 0.5).to(dtype).requires_grad_()
    spikes, thresholds = present(lif, x, [1, 3])
    spikes.sum().backward()
    assert spikes.shape == x.shape
    assert spikes.dtype == dtype
    assert set(spikes.flatten().tolist()) <= {0.0, 1.0}
    assert lif.membrane is not None
    assert lif.membrane.shape == shape
    assert lif.threshold.shape == ()
    assert all(map(math.isfinite, thresholds))
    assert x.grad is not None
    assert x.grad.dtype == dtype
    assert x.grad.isfinite().all()


# --- dropout ---


def test_dropout_drops_the_same_neurons_at_every_step() -> None:
    lif = LIF(dropout=0.25)
    currents = torch.full((5, 40, 50), 2.0, requires_grad=True)
    spikes, _ = present(lif, currents, [1, 2, 2])
    assert (spikes == spikes[0]).all()
    assert spikes.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (spikes[0] > 0).float().mean().item() == pytest.approx(0.75, abs=0.04)
    spikes.sum().backward()
    assert currents.grad is not None
    sigma = 1 / (1 + math.exp(-4))  # u - θ = 1 at the first step
    assert currents.grad[0].flatten().tolist() == pytest.approx(
        (spikes[0] * 4 * sigma * (1 - sigma)).flatten().tolist(), rel=1e-5
    )
    # a dropped neuron still fires and resets
    assert lif.membrane is not None
    assert lif.membrane.unique().numel() == 1
    again, _ = present(lif, currents)
    assert not torch.equal(again, spikes)


def test_dropout_is_seeded_and_does_not_depend_on_chunks() -> None:
    x = torch.randn(4, 3, 20) + 1
    spikes = []
    for chunks in ([1, 1, 1, 1], [3, 1], [4]):
        torch.manual_seed(7)
        spikes.append(present(LIF(dropout=0.5), x, chunks)[0])
    assert torch.equal(spikes[0], spikes[1])
    assert torch.equal(spikes[0], spikes[2])
    torch.manual_seed(8)
    assert not torch.equal(spikes[0], present(LIF(dropout=0.5), x)[0])


def test_no_dropout_in_evaluation() -> None:
    x = torch.randn(4, 3, 20) + 1
    plain, _ = present(LIF(), x)
    assert torch.equal(present(LIF(dropout=0.5).eval(), x)[0], plain)
    assert torch.equal(present(LIF(dropout=0.0), x)[0], plain)


# --- arguments ---


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"tau": 0.5}, "tau"),
        ({"tau": math.nan}, "tau"),
        ({"reset": "soft"}, "reset"),
        ({"inference_threshold": "learned"}, "inference_threshold"),
        ({"dropout": 1.0}, "dropout"),
        ({"dropout": -0.1}, "dropout"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        LIF(**arguments)


def test_defaults() -> None:
    lif = LIF()
    x = torch.randn(3, 4, 5, dtype=torch.float64) + 0.5
    same = LIF(2.0, 1.0, "subtract", False, 4.0, 0.0, "live")
    assert torch.equal(present(lif, x)[0], present(same, x)[0])
    assert not list(lif.parameters())
    assert not lif.state_dict()  # thresholds are learned with the stabilizer only
