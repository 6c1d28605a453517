"""BNTT and TAB against their formulas over the unrolled steps, by autograd."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from snn.norms import assert_alike, present, warm
from steadyspike import sequence
from steadyspike.models import build
from steadyspike.snn.norm_each_step import BNTT, TAB

STEPS = 4
KINDS = {"bntt": BNTT, "tab": TAB}
every_kind = pytest.mark.parametrize("kind", KINDS)


def norm_of(kind: str, **options: Any) -> Any:
    norm = warm(KINDS[kind](3, STEPS, **options))
    if kind == "tab":
        norm.step_weight.data.copy_(torch.linspace(-0.5, 1.5, STEPS))
    return norm


def currents(*space: int) -> Tensor:
    x = torch.randn(STEPS, 5, 3, *space, dtype=torch.float64)
    return x * torch.tensor([1.0, 2.0, 0.5]).double().view(3, *[1] * len(space)) + 3


def by_formula(kind: str, norm: Any, x: Tensor, eps: float = 1e-4) -> Tensor:
    """Step t by step t alone, or by all up to it, of which the earlier ones are constants."""
    out = []
    along = [1, -1] + [1] * (x.dim() - 3)
    for t in range(len(x)):
        seen = x[t : t + 1] if kind == "bntt" else torch.cat([x[:t].detach(), x[t : t + 1]])
        over = [dim for dim in range(x.dim()) if dim != 2]
        mean = seen.mean(over).view(along)
        var = ((seen - mean).square().mean(over)).view(along)
        y = norm.weight[t].view(along) * (x[t] - mean) / (var + eps).sqrt()
        y = y + norm.bias[t].view(along)
        out.append(y if kind == "bntt" else norm.step_weight[t] ** 2 * y)
    return torch.stack(out)


@every_kind
@pytest.mark.parametrize("chunks", [(1, 1, 1, 1), (3, 1), (4,)], ids=str)
@pytest.mark.parametrize("space", [(), (6, 5)], ids=str)
def test_values_and_gradients(kind: str, space: Sequence[int], chunks: Sequence[int]) -> None:
    norm, x = norm_of(kind), currents(*space).requires_grad_()
    leaves = [x, *norm.parameters()]
    assert_alike(present(norm, x, chunks), by_formula(kind, norm, x), leaves)


def test_tab_in_the_frameworks_three_dimensional_batch_normalization() -> None:
    """As the method's code has it: the t-th of T norms, of steps 1 to t, its last step kept."""
    norm, x = norm_of("tab"), currents(6, 5)
    expected = []
    for t in range(STEPS):
        theirs = nn.BatchNorm3d(3, eps=1e-4).double()
        theirs.weight.data.copy_(norm.weight[t])
        theirs.bias.data.copy_(norm.bias[t])
        y = theirs(x[: t + 1].permute(1, 2, 0, 3, 4))  # (N, C, T, H, W)
        expected.append(norm.step_weight[t] ** 2 * y[:, :, -1])
    torch.testing.assert_close(present(norm, x), torch.stack(expected))


@every_kind
def test_running_statistics_are_of_each_step(kind: str) -> None:
    norm, x = norm_of(kind), currents(6, 5)
    before = norm.running_mean.clone(), norm.running_var.clone()
    present(norm, x, (3, 1))
    for t in range(STEPS):
        seen = x[t] if kind == "bntt" else x[: t + 1].flatten(0, 1)
        mean, var = seen.mean((0, 2, 3)), seen.var((0, 2, 3), correction=0)
        torch.testing.assert_close(norm.running_mean[t], 0.9 * before[0][t] + 0.1 * mean)
        torch.testing.assert_close(norm.running_var[t], 0.9 * before[1][t] + 0.1 * var)


@every_kind
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_inference_by_the_steps_own_statistics(kind: str, chunk: int) -> None:
    """In a presentation longer than T the last step's serve on."""
    norm = norm_of(kind).eval()
    x = torch.cat([currents(2, 2), currents(2, 2)])[:6]
    with torch.no_grad():
        ours = present(norm, x, [chunk] * (6 // chunk) + [6 % chunk] * (6 % chunk > 0))
    for t in range(6):
        row = min(t, STEPS - 1)
        y = F.batch_norm(
            x[t],
            norm.running_mean[row],
            norm.running_var[row],
            norm.weight[row],
            norm.bias[row],
            eps=1e-4,
        )
        factor = norm.step_weight[row] ** 2 if kind == "tab" else 1
        torch.testing.assert_close(ours[t], factor * y)


@every_kind
def test_warmed_up_statistics_are_plain_means(kind: str) -> None:
    norm = KINDS[kind](3, STEPS, warm_up_statistics=True).double().train()
    clips = [currents(2, 2) for _ in range(3)]
    for x in clips:
        present(norm, x)
    own = torch.stack([x[0].mean((0, 2, 3)) for x in clips]).mean(0)
    torch.testing.assert_close(norm.running_mean[0], own)


@every_kind
def test_a_body_that_raises_folds_nothing_in(kind: str) -> None:
    norm, x = norm_of(kind), currents(2, 2)
    before = norm.running_mean.clone()
    with suppress(ZeroDivisionError), sequence(norm, steps=STEPS):
        norm(x)
        raise ZeroDivisionError
    assert torch.equal(norm.running_mean, before)
    # Nothing of that presentation is left in the next one's statistics.
    torch.testing.assert_close(present(norm, x), by_formula(kind, norm, x))


@every_kind
def test_large_means_lose_no_variance(kind: str) -> None:
    norm = KINDS[kind](3, STEPS).train()
    x = currents(6, 5)
    low = present(norm, (x + 1e3).float())
    exact = by_formula(kind, norm.double(), x)
    assert (low.double() - exact).abs().max() < 2e-2


def test_tab_takes_no_bias_of_a_convolution_in() -> None:
    """Its gradient is not 0, since earlier steps are constants; `offset` would make it so."""
    assert not TAB.takes_offset
    assert BNTT.takes_offset


@pytest.mark.parametrize("norm", ["bntt", "tab", "tebn"])
def test_a_network_needs_to_know_the_steps(norm: str) -> None:
    options: dict[str, Any] = {"in_channels": 1, "num_classes": 2, "online": norm != "tebn"}
    with pytest.raises(ValueError, match=f"norm '{norm}' needs steps, the T of the training"):
        build("vggsnn", norm=norm, **options)
    model = build("vggsnn", norm=norm, steps=3, widths=(2,), **options)
    rows = [p for name, p in model.named_parameters() if name.endswith("norm.step_weight")]
    assert {len(p) for p in rows} == ({3} if norm != "bntt" else set())


def test_an_unknown_norm_is_named() -> None:
    with pytest.raises(ValueError, match=r"norm must be one of 'osr', .*'tebn', not 'layer'"):
        build("vggsnn", in_channels=1, num_classes=2, norm="layer")
