"""ResNet-19: its wiring, the norm of its head, its sizes. Its numbers: deploy/test_released.py."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from steadyspike import sequence
from steadyspike.models import ResNet19, build
from steadyspike.snn.norm import BatchNorm

NORMS = ("osr", "per_step", "linear", "batch")


def narrow(**options: Any) -> ResNet19:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"widths": (4, 6, 8), "hidden_width": 5, "image_size": 16}
    return ResNet19(2, 3, **(sizes | options)).double()


def clip(steps: int = 4, size: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(steps, 3, 2, size, size, generator=generator, dtype=torch.float64)


def trained(model: nn.Module, frames: Tensor, k: int) -> dict[str, Tensor]:
    """Logits, gradients and buffers of a training presentation in chunks of ``k`` steps."""
    torch.manual_seed(3)  # of dropout
    logits = []
    with sequence(model, steps=len(frames)):
        for chunk in frames.split(k):
            out = model(chunk)
            out.square().sum().backward()
            logits.append(out.detach())
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {"logits": torch.cat(logits), **found, **dict(model.named_buffers())}


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("k", [2, 4])
def test_chunks_change_nothing(norm: str, k: int) -> None:
    options: dict[str, Any] = {"norm": norm, "dropout": 0.2, "stabilize_threshold": True}
    one = trained(narrow(**options), clip(), 1)
    chunked = trained(narrow(**options), clip(), k)
    assert one.keys() == chunked.keys()
    for name, value in one.items():
        torch.testing.assert_close(chunked[name], value, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("online", [True, False])
def test_a_gradient_crosses_steps_in_bptt_alone(online: bool) -> None:
    model = narrow(norm="batch", online=online, stabilize_threshold=False)
    frames = clip().requires_grad_()
    with sequence(model, steps=4):
        model(frames)[-1].square().sum().backward()
    assert frames.grad is not None
    reached = frames.grad.flatten(1).abs().sum(1) > 0
    assert reached.tolist() == [not online, not online, not online, True]


def test_a_block_normalizes_the_sum_of_branch_and_shortcut() -> None:
    model = narrow(stabilize_threshold=False).eval()
    identity, downsampling = model.stages[0][1], model.stages[1][0]
    spikes = (clip() > 0).double()[:, :, :1].expand(-1, -1, 4, -1, -1)
    for block in (identity, downsampling):
        seen: dict[str, Tensor] = {}
        block.neuron.register_forward_pre_hook(lambda _, args, seen=seen: seen.update(sum=args[0]))
        block.conv.register_forward_hook(lambda _, args, out, seen=seen: seen.update(conv=out))
        out = block(spikes)
        shortcut = spikes if block is identity else block.shortcut(spikes)
        torch.testing.assert_close(seen["sum"], seen["conv"].reshape(out.shape) + shortcut)
        assert set(out.unique().tolist()) == {0.0, 1.0}
    assert out.shape == (4, 3, 6, 8, 8)


@pytest.mark.parametrize("norm", NORMS)
def test_the_heads_norm_is_updated_unless_released_behaviour_is_asked_for(norm: str) -> None:
    moved = narrow(norm=norm)
    kept = narrow(norm=norm, update_head_norm=False)
    for model in (moved, kept):
        currents: list[Tensor] = []
        model.hidden.register_forward_hook(lambda _, args, out, to=currents: to.append(out))
        trained(model, clip(1), 1)
    weight = 0.01 if norm == "linear" else 0.1
    torch.testing.assert_close(
        moved.hidden_norm.running_mean, weight * currents[0].detach().mean((0, 1))
    )
    assert torch.equal(kept.hidden_norm.running_mean, torch.zeros(5).double())
    assert torch.equal(kept.hidden_norm.running_var, torch.ones(5).double())
    assert not torch.equal(kept.stem.norm.running_mean, torch.zeros(4).double())


def test_the_frameworks_norm_serves_the_head_too() -> None:
    model = narrow(norm="batch", online=False)
    assert isinstance(model.hidden_norm, BatchNorm)
    x = torch.randn(2, 6, 5, dtype=torch.float64)
    ordinary = nn.BatchNorm1d(5).double()
    want = torch.stack([ordinary(step) for step in x])
    assert torch.equal(model.hidden_norm(x), want)
    assert torch.equal(model.hidden_norm.running_var, ordinary.running_var)
    with pytest.raises(ValueError, match=r"\(K, N, 5\)"):
        model.hidden_norm(x.unsqueeze(-1))


@pytest.mark.parametrize("size", [16, 17, 28, 33])
def test_the_head_fits_the_image_size(size: int) -> None:
    model = narrow(image_size=size).eval()
    assert model(clip(2, size)).shape == (2, 3, 3)
    with pytest.raises(ValueError, match=rf"{size} by {size} \(image_size\), not 64 by 64"):
        model(clip(2, 64))


def test_starts_as_released() -> None:
    model = narrow(widths=(64, 64, 96))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.1)
            assert module.bias is not None
            assert module.bias.any()  # the framework's, not 0
    bound = 1 / math.sqrt(model.hidden.in_features)  # the framework's
    assert 0.9 * bound < model.hidden.weight.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"image_size": 4}, ValueError, "image_size 4"),
        ({"widths": (4, 6)}, ValueError, "widths and blocks"),
        ({"widths": (4, 6, 8), "blocks": (1, 0, 1)}, ValueError, "at least one block"),
        ({"widths": (4, 6, -8)}, ValueError, "positive integer, not -8"),
        ({"widths": (4, 6, "P")}, ValueError, "positive integer, not 'P'"),
        ({"norm": "group"}, ValueError, "'group'"),
        ({"reset": "hard"}, ValueError, "'hard'"),
        ({"stabilise_threshold": True}, TypeError, "stabilise_threshold"),
    ],
)
def test_impossible_options_are_refused(
    options: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        narrow(**options)


def test_build_names_the_options_that_there_are() -> None:
    with pytest.raises(
        ValueError, match=r"resnet19 has no option 'head'; it has in_channels, .*tau"
    ):
        build("resnet19", in_channels=3, num_classes=10, head="gesture")
    with pytest.raises(ValueError, match="nf_resnet34, resnet19, sew_resnet34, vggsnn"):
        build("resnet20", in_channels=3, num_classes=10)
