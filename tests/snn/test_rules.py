"""Every rule's gradient against its formula, written out over all steps in plain torch."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from snn import unrolled
from snn.test_traces import traced
from steadyspike import kernels, sequence
from steadyspike.evaluate.memory import KeptBytes
from steadyspike.models import build
from steadyspike.snn.conv import Convolution, convolve
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import StepNorm
from steadyspike.snn.rule import Rule
from steadyspike.snn.rules import RULES
from steadyspike.train import tet_loss
from tiny import REPOSITORY

TRACED = [name for name, rule in RULES.items() if rule.has_trace]
NETWORKS: dict[str, dict[str, Any]] = {
    "vggsnn": {"widths": (8, "P", 8, 8)},
    "gesture": {"widths": (8, "P", 8), "head": "gesture", "head_widths": (6, 5)},
    "resnet19": {"widths": (8, 16), "blocks": (1, 1), "image_size": 16, "hidden_width": 8},
    "sew_resnet34": {"widths": (8, 16), "blocks": (1, 1)},
    "nf_resnet34": {"widths": (8, 16), "blocks": (1, 1)},
}


def network(name: str, **options: Any) -> nn.Module:
    torch.manual_seed(3)
    kind = "vggsnn" if name == "gesture" else name
    model = build(kind, in_channels=2, num_classes=3, **NETWORKS[name], **options)
    for module in model.modules():  # so that many neurons of every layer fire
        if isinstance(module, StepNorm):
            nn.init.constant_(module.bias, 0.7)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.5)
    return model.double()


def batch(steps: int = 4, side: int = 8) -> tuple[Tensor, Tensor]:
    clip = 2 * torch.randn(steps, 4, 2, side, side, dtype=torch.float64)
    return clip, torch.arange(4) % 3


def gradients(model: nn.Module, clip: Tensor, labels: Tensor, chunk: int) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(5)  # dropout
    with sequence(model, steps=len(clip)):
        for part in clip.split(chunk):
            tet_loss(model(part), labels, steps=len(clip), mse_weight=0.05).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


def close(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float = 1e-10) -> None:
    assert ours.keys() == theirs.keys()
    for name, grad in ours.items():
        torch.testing.assert_close(
            grad, theirs[name], rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


def apart(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert any((grad - theirs[name]).abs().max() > 1e-5 for name, grad in ours.items())


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("name", unrolled.DECAYS)
def test_a_gradient_is_that_of_its_formula(name: str, reset: Any, chunk: int) -> None:
    options = {"norm": "per_step", "stabilize_threshold": False, "reset": reset}
    model = network("vggsnn", rule=name, **options)
    clip, labels = batch()
    ours = gradients(model, clip, labels, chunk)
    expected = unrolled.gradients(model, clip, labels, unrolled.DECAYS[name], reset=reset)
    close(ours, expected)
    for other, decay in unrolled.DECAYS.items():
        # With v = 0 after a spike NDOT's trace forgets at once all that it holds.
        if other != name and not (reset == "zero" and {other, name} == {"sltt", "ndot"}):
            apart(ours, unrolled.gradients(model, clip, labels, decay, reset=reset))


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("name", RULES)
def test_one_step_is_sltt(name: str, network_name: str) -> None:
    clip, labels = batch(1, 16)
    ours = gradients(network(network_name, rule=name), clip, labels, 1)
    close(ours, gradients(network(network_name), clip, labels, 1))


@pytest.mark.parametrize("network_name", NETWORKS)
@pytest.mark.parametrize("name", TRACED)
def test_chunks_change_nothing(name: str, network_name: str) -> None:
    clip, labels = batch(4, 16)
    options: dict[str, Any] = {"rule": name, "dropout": 0.2}
    ours = gradients(network(network_name, **options), clip, labels, 1)
    close(ours, gradients(network(network_name, **options), clip, labels, 3))
    apart(ours, gradients(network(network_name, **options | {"rule": "sltt"}), clip, labels, 1))


@pytest.mark.parametrize("name", TRACED)
def test_a_rule_changes_the_gradients_of_weights_behind_spikes_alone(name: str) -> None:
    """The first layer sees frames; norms, biases and gradients of currents need no trace."""
    clip, labels = batch()
    ours = gradients(network("vggsnn", rule=name), clip, labels, 1)
    theirs = gradients(network("vggsnn"), clip, labels, 1)
    traced = {"features.2.conv.weight", "features.3.conv.weight", "classifier.weight"}
    close(*({k: v for k, v in each.items() if k not in traced} for each in (ours, theirs)))
    for each in traced:
        assert (ours[each] - theirs[each]).abs().max() > 1e-5


@pytest.mark.parametrize("name", TRACED)
def test_inference_has_no_trace(name: str) -> None:
    clip, _ = batch()
    model, plain = network("vggsnn", rule=name).eval(), network("vggsnn").eval()
    with torch.no_grad(), sequence(model, steps=4), sequence(plain, steps=4):
        assert torch.equal(model(clip), plain(clip))
    assert model.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("rule", TRACED)
def test_a_trace_by_its_sum(rule: str) -> None:
    """a[t] = Σ_τ s[τ] Π_{τ < i ≤ t} μ[i], of spikes after dropout."""
    neuron = LIF(rule=RULES[rule](), dropout=0.3).double()
    currents = torch.randn(6, 50, dtype=torch.float64)
    with sequence(neuron, steps=6):
        calls = [neuron(part) for part in currents.split(4)]
    spikes = torch.cat([call.spikes for call in calls])
    trace = torch.cat([call.trace for call in calls])
    v, reset = [torch.zeros(50, dtype=torch.float64)], torch.zeros(50, dtype=torch.float64)
    for current in currents:
        u = 0.5 * reset + current
        reset = u - (u >= 1).double()
        v.append(reset)  # v[t] at index t, v[0] = 0
    for t in range(6):
        expected = torch.zeros(50, dtype=torch.float64)
        for tau in range(t + 1):
            product = torch.ones(50, dtype=torch.float64)
            for i in range(tau + 1, t + 1):
                product = product * unrolled.DECAYS[rule](v[1 : i + 1])  # type: ignore[misc]
            expected += product * spikes[tau]
        torch.testing.assert_close(trace[t], expected)
    assert (spikes == 0).any()
    assert set(spikes.unique().tolist()) == {0.0, 1 / (1 - 0.3)}


def test_ndot_takes_the_sign_where_it_cannot_divide() -> None:
    neuron = LIF(tau=4.0, rule=RULES["ndot"]()).double()
    # v[1] = 0.5, 0, -0.5 of neurons that started at 0; v[2] = 0.375, 0, -0.375
    currents = torch.tensor([[0.5, 0.0, -0.5], [0.0, 0.0, 0.0], [2.0, 2.0, 2.0]]).double()
    rule = neuron.rule
    assert rule is not None
    with sequence(neuron, steps=3):
        seen = []
        for current in currents.split(1):
            neuron(current)
            seen.append(rule._decay.clone())  # type: ignore[attr-defined]
    assert torch.equal(seen[0], torch.tensor([0.75, 0.0, -0.75]).double())
    torch.testing.assert_close(seen[1], torch.tensor([0.75, 0.0, 0.75]).double())


@pytest.mark.parametrize(("rule", "tau"), [("sltt", 1.0), ("ottt", 1.0), ("ottt", 2.0)])
def test_finite_differences(rule: str, tau: float) -> None:
    """Where neurons integrate and do not fire, OTTT's gradient is true; SLTT's is without leak.

    The spike's surrogate is the derivative of a sigmoid, so the function is Σ w[t] σ(k(u[t] - θ)).
    """
    x = traced()
    weight = 0.1 * torch.randn(4, 3, 3, 3, dtype=torch.float64)
    importance = torch.randn(5, 2, 4, 4, 4, dtype=torch.float64)

    def value(weight: Tensor) -> Tensor:
        u, total = torch.zeros(2, 4, 4, 4, dtype=torch.float64), torch.zeros(()).double()
        for t, spikes in enumerate(x.spikes.detach()):
            u = (1 - 1 / tau) * u + nn.functional.conv2d(spikes, weight, padding=1)
            total = total + (importance[t] * torch.sigmoid(4 * (u - 5))).sum()
        assert (u < 5).all()
        return total

    neuron = LIF(tau=tau, v_threshold=5.0).double()
    conv = Convolution(3, 4, 3, padding=1, bias=False).double()
    conv.weight.data.copy_(weight)
    before = LIF(tau=tau, rule=RULES[rule]() if rule == "ottt" else None).double()
    model = nn.ModuleList([before, conv, neuron])
    with sequence(model, steps=5):
        inputs = before(2 * x.spikes.detach())  # 2 fires, 0 does not; what remains is below 1
        if tau == 1:
            assert torch.equal(inputs if rule == "sltt" else inputs.spikes, x.spikes)
        else:  # the neurons fire now and then; the function is of their spikes
            x = inputs
        (neuron(convolve(conv, inputs, None)) * importance).sum().backward()
    small = 1e-6
    direction = torch.randn_like(weight)
    numeric = (value(weight + small * direction) - value(weight - small * direction)) / (2 * small)
    assert conv.weight.grad is not None
    assert float((conv.weight.grad * direction).sum()) == pytest.approx(float(numeric), rel=1e-6)


@pytest.mark.parametrize("name", RULES)
def test_memory_does_not_grow_with_the_steps(name: str) -> None:
    def most(steps: int, rule: str) -> int:
        model = network("vggsnn", rule=rule).float()
        kept, most = KeptBytes(model), 0
        clip, labels = batch(steps)
        with sequence(model, steps=steps):
            for frames in clip.float().split(1):
                own = frames.clone()  # not a view of the clip, whose storage grows
                with kept.counted():
                    loss = tet_loss(model(own), labels, steps=steps, mse_weight=0.05)
                most = max(most, kept.total)
                loss.backward()
        return most

    two = most(2, name)
    assert two == most(8, name)
    # A trace in place of the spikes that two convolutions see, which kernels store as bytes; the
    # classifier's inputs are floats in any case.
    inputs = 4 * (8 * 4 * 4 + 8 * 4 * 4)
    packed = kernels.backend(torch.empty(0)) is not kernels.reference
    assert two - most(2, "sltt") == (3 * inputs if RULES[name].has_trace and packed else 0)


@pytest.mark.parametrize("name", TRACED)
def test_bptt_has_no_rule(name: str) -> None:
    with pytest.raises(ValueError, match="online must be true with the rule"):
        LIF(online=False, rule=RULES[name]())
    with pytest.raises(ValueError, match=f"rule '{name}' is for online training"):
        build("vggsnn", in_channels=1, num_classes=2, rule=name, online=False, norm="batch")


def test_an_unknown_rule_is_named() -> None:
    with pytest.raises(ValueError, match="rule must be one of 'ndot', 'ottt', 'sltt', 'sltt_k'"):
        build("vggsnn", in_channels=1, num_classes=2, rule="e_prop")


def test_a_rule_must_say_how_its_trace_decays() -> None:
    neuron = LIF(rule=Rule())
    with pytest.raises(NotImplementedError), sequence(neuron, steps=1):
        neuron(torch.zeros(1, 2))


def test_a_rule_must_say_that_it_reads_potentials() -> None:
    class Quiet(RULES["ndot"]):  # type: ignore[misc]
        reads_potentials = False

    neuron = LIF(rule=Quiet())
    with pytest.raises(RuntimeError, match="reads_potentials = True"), sequence(neuron, steps=1):
        neuron(torch.zeros(1, 2))


def documented() -> Iterator[str]:
    """The Python blocks of the page."""
    page = (REPOSITORY / "docs" / "add-a-rule.md").read_text()
    for block in page.split("```python\n")[1:]:
        yield block.partition("```")[0]


def test_the_documented_rule_works() -> None:
    module = ModuleType("steadyspike.snn.rules.documented")
    (source,) = documented()
    assert len(source.splitlines()) < 60
    exec(source, vars(module))
    (rule,) = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Rule) and value is not Rule
    ]
    neuron = LIF(rule=rule()).double()
    currents = torch.full((3, 1), 1.5, dtype=torch.float64)
    with sequence(neuron, steps=3):
        out = neuron(currents)
    # Membranes 1.5, 1.75, 1.875 fire at each step.
    assert torch.equal(out.spikes, torch.ones(3, 1, dtype=torch.float64))
    decays = [math.exp(-1 / 3)] * 2
    expected = [1.0, 1 + decays[0], 1 + decays[1] * (1 + decays[0])]
    torch.testing.assert_close(out.trace[:, 0], torch.tensor(expected).double())


@pytest.mark.parametrize("name", RULES)
def test_a_rule_is_one_short_file(name: str) -> None:
    path = REPOSITORY / "src" / "steadyspike" / "snn" / "rules" / f"{name}.py"
    assert len(path.read_text().splitlines()) < 60
