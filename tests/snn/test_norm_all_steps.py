"""tdBN and TEBN against their formulas over all steps, in a layer and in a network with BPTT."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn import unrolled
from snn.norms import assert_alike, present, warm
from steadyspike import sequence
from steadyspike.models import VGGSNN, build
from steadyspike.snn.norm_all_steps import TEBN, TdBN
from steadyspike.train import tet_loss

STEPS = 4


def norm_of(kind: str) -> Any:
    norm = TdBN(3, v_threshold=1.5) if kind == "tdbn" else TEBN(3, STEPS)
    warm(norm if kind == "tdbn" else norm.norm)
    if kind == "tebn":
        norm.step_weight.data.copy_(torch.linspace(-0.5, 1.5, STEPS))
    return norm.double().train()


def by_formula(norm: Any, x: Tensor) -> Tensor:
    inner = norm.norm if isinstance(norm, TEBN) else norm
    over = [dim for dim in range(x.dim()) if dim != 2]
    along = [1, 1, -1] + [1] * (x.dim() - 3)
    mean, var = x.mean(over).view(along), x.var(over, correction=0).view(along)
    y = inner.weight.view(along) * (x - mean) / (var + 1e-5).sqrt() + inner.bias.view(along)
    if isinstance(norm, TEBN):
        y = norm.step_weight.view(-1, *[1] * (x.dim() - 1)) * y
    return y


@pytest.mark.parametrize("kind", ["tdbn", "tebn"])
@pytest.mark.parametrize("space", [(), (6, 5)], ids=str)
def test_values_and_gradients(kind: str, space: tuple[int, ...]) -> None:
    norm = norm_of(kind)
    x = (2 * torch.randn(STEPS, 5, 3, *space, dtype=torch.float64) + 1).requires_grad_()
    ours = norm(x) if kind == "tdbn" else present(norm, x)
    assert_alike(ours, by_formula(norm, x), [x, *norm.parameters()])


@pytest.mark.parametrize("kind", ["tdbn", "tebn"])
def test_inference_by_running_statistics(kind: str) -> None:
    norm = norm_of(kind).eval()
    inner = norm.norm if kind == "tebn" else norm
    x = torch.randn(6, 5, 3, 2, 2, dtype=torch.float64)
    with torch.no_grad():
        ours = norm(x) if kind == "tdbn" else present(norm, x, (4, 2))
    for t in range(6):
        y = F.batch_norm(x[t], inner.running_mean, inner.running_var, inner.weight, inner.bias)
        factor = norm.step_weight[min(t, STEPS - 1)] if kind == "tebn" else 1  # the last serves on
        torch.testing.assert_close(ours[t], factor * y)


def test_gamma_starts_at_the_threshold() -> None:
    assert torch.equal(TdBN(2, v_threshold=0.5).weight, torch.tensor([0.5, 0.5]))
    model = VGGSNN(1, 2, widths=(3,), norm="tdbn", online=False, v_threshold=0.7)
    assert torch.equal(model.features[0].norm.weight, torch.full((3,), 0.7))


@pytest.mark.parametrize("kind", ["tdbn", "tebn"])
def test_a_network_trained_with_bptt(kind: str) -> None:
    """The gradients of all weights by autograd over layers of all steps, in plain torch."""
    torch.manual_seed(4)
    model = VGGSNN(
        2, 3, widths=(6, "P", 5), norm=kind, steps=STEPS, online=False, stabilize_threshold=False
    ).double()
    for module in model.modules():
        if isinstance(module, TdBN):
            nn.init.constant_(module.bias, 0.7)
    clip = torch.randn(STEPS, 4, 2, 8, 8, dtype=torch.float64)
    labels = torch.arange(4) % 3
    with sequence(model, steps=STEPS):
        tet_loss(model(clip), labels, steps=STEPS, mse_weight=0.05).backward()
    x = clip
    for module in model.features:
        if not hasattr(module, "conv"):
            x = torch.stack([F.avg_pool2d(step, 2) for step in x])
            continue
        conv = module.conv
        y = by_formula(
            module.norm, torch.stack([F.conv2d(s, conv.weight, conv.bias, padding=1) for s in x])
        )
        v, spikes = torch.zeros_like(y[0]), []
        for current in y:
            u = unrolled.LEAK * v + current
            spikes.append(unrolled.spike(u))
            v = torch.where((u >= 1).detach(), u - 1, u)
        x = torch.stack(spikes)
    logits = F.linear(x.mean((-2, -1)), model.classifier.weight, model.classifier.bias)
    loss = tet_loss(logits, labels, steps=STEPS, mse_weight=0.05)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    for (name, ours), theirs in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(ours.grad, theirs, msg=lambda m, n=name: f"{n}: {m}")
    assert expected[0].abs().max() > 1e-4


NETWORKS: dict[str, dict[str, Any]] = {
    "resnet19": {"widths": (8, 8), "blocks": (1, 1), "image_size": 8, "hidden_width": 6},
    "sew_resnet34": {"widths": (8, 8), "blocks": (1, 1)},
    "nf_resnet34": {"widths": (8, 8), "blocks": (1, 1)},
}


@pytest.mark.parametrize("kind", ["tdbn", "tebn"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_them(name: str, kind: str) -> None:
    options = {**NETWORKS[name], "norm": kind, "steps": STEPS, "online": False}
    model = build(name, in_channels=2, num_classes=3, **options)
    with sequence(model, steps=STEPS):
        logits = model(2 * torch.randn(STEPS, 4, 2, 8, 8))
        tet_loss(logits, torch.arange(4) % 3, steps=STEPS, mse_weight=0.05).backward()
    norms = [module for module in model.modules() if isinstance(module, TdBN)]
    assert len(norms) > 4
    assert all(int(norm.num_batches_tracked or 0) == 1 for norm in norms)
    for parameter in model.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["tdbn", "tebn"])
def test_the_norm_of_a_head_can_be_left_as_it_is(kind: str) -> None:
    model = build(
        "resnet19", in_channels=2, num_classes=3, **NETWORKS["resnet19"], norm=kind, steps=STEPS,
        online=False, update_head_norm=False,
    )  # fmt: skip
    with sequence(model, steps=STEPS):
        model(2 * torch.randn(STEPS, 4, 2, 8, 8))
    norms = {name: m for name, m in model.named_modules() if isinstance(m, TdBN)}
    for name, norm in norms.items():
        moved = bool((norm.running_var - 1).abs().max() > 0)
        assert moved == (not name.startswith("hidden_norm")), name
