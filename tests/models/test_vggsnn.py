"""VGGSNN's shape and beginning, and its training in any chunks, dtype and device."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from models.vggsnns import METHODS, TINY, small_batch, train_batch
from steadyspike import sequence
from steadyspike.models import VGGSNN, build
from steadyspike.snn.norm import OSR

each_method = pytest.mark.parametrize("method", METHODS)
online_method = pytest.mark.parametrize("method", [name for name in METHODS if name != "bptt"])


# --- shape and beginning ---


def test_parameter_count_is_the_papers() -> None:
    model = VGGSNN(3, 10)
    assert sum(parameter.numel() for parameter in model.parameters()) == 9_231_114
    assert sum(isinstance(module, nn.Conv2d) for module in model.modules()) == 8
    assert sum(isinstance(module, OSR) for module in model.modules()) == 8


def test_initialization() -> None:
    torch.manual_seed(0)
    model = VGGSNN(2, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            std = math.sqrt(2 / (module.out_channels * 9))  # Kaiming, fan-out
        elif isinstance(module, nn.Linear):
            std = 0.01
        else:
            continue
        weight = module.weight.detach()
        tolerance = 5 / math.sqrt(2 * weight.numel())  # five standard errors
        assert weight.std().item() == pytest.approx(std, rel=tolerance)
        assert abs(weight.mean().item()) < 5 * std / math.sqrt(weight.numel())
        assert module.bias is not None
        assert module.bias.abs().max() == 0
    for module in model.modules():
        if isinstance(module, OSR):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()


def test_initialization_is_seeded() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(VGGSNN(2, 3, widths=TINY).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not torch.equal(states[0]["classifier.weight"], states[2]["classifier.weight"])


@each_method
@pytest.mark.parametrize(("k", "n", "image"), [(1, 1, (8, 8)), (3, 2, (5, 7)), (2, 3, (2, 2))])
def test_shapes(method: str, k: int, n: int, image: tuple[int, int]) -> None:
    model = VGGSNN(2, 7, widths=TINY, **METHODS[method])
    with sequence(model, steps=k):
        assert model(torch.randn(k, n, 2, *image)).shape == (k, n, 7)
    assert model.eval()(torch.randn(k, n, 2, *image)).shape == (k, n, 7)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"widths": (4, "M", 8)}, "width.*'M'"),
        ({"widths": (4, 0)}, "width.*not 0"),
        ({"widths": (4, -8)}, "width.*not -8"),
        ({"widths": (4, 2.5)}, r"width.*not 2\.5"),
        ({"norm": "group"}, "group"),
        ({"reset": "hard"}, "reset"),
        ({"tau": 0.0}, "tau"),
        ({"dropout": 1.5}, "dropout"),
        ({"inference_threshold": "frozen"}, "inference_threshold"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        VGGSNN(2, 3, **arguments)


def test_built_by_name() -> None:
    model = build("vggsnn", in_channels=2, num_classes=5, widths=TINY, norm="linear")
    assert isinstance(model, VGGSNN)
    with pytest.raises(ValueError, match="vgg16"):
        build("vgg16", in_channels=2, num_classes=5)


def test_options_reach_every_layer() -> None:
    torch.manual_seed(0)
    model = VGGSNN(
        1, 2, widths=(3, 3), norm="osr", reset="zero", tau=4.0, v_threshold=0.5, dropout=0.5,
        surrogate_slope=2.0, inference_threshold="fixed", fallback_ratio=50.0,
    )  # fmt: skip
    neurons = [module for module in model.modules() if type(module).__name__ == "LIF"]
    assert len(neurons) == 2
    for neuron in neurons:
        assert neuron.reset == "zero"
        assert neuron.leak == 0.75
        assert neuron.v_threshold == 0.5
        assert neuron.dropout == 0.5
        assert neuron.surrogate_slope == 2
        assert neuron.inference_threshold == "fixed"
        assert neuron.stabilize_threshold
    assert [m.fallback_ratio for m in model.modules() if isinstance(m, OSR)] == [50, 50]


# --- chunks ---


@online_method
@pytest.mark.parametrize("reset", ["subtract", "zero"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_and_statistics_do_not_depend_on_chunks(
    method: str, reset: str, dropout: float
) -> None:
    clip, labels = small_batch()
    results = []
    for chunks in ([1, 1, 1, 1], [2, 2], [3, 1], [4]):
        torch.manual_seed(5)
        options = {"reset": reset, "dropout": dropout, **METHODS[method]}
        model = VGGSNN(2, 3, widths=TINY, **options).double()
        torch.manual_seed(6)  # of dropout
        loss = train_batch(model, clip, labels, chunks)
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        results.append((torch.tensor(loss), gradients, dict(model.named_buffers())))
        assert any(gradient.abs().max() > 0 for gradient in gradients.values())
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-9, atol=1e-11)


@online_method
def test_inference_does_not_depend_on_chunks(method: str) -> None:
    clip, labels = small_batch()
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).double()
    train_batch(model, clip, labels, [4])
    model.eval()
    whole = model(clip)
    for chunks in ([1, 1, 1, 1], [2, 2], [3, 1]):
        with sequence(model, steps=4):
            logits = torch.cat([model(frames) for frames in clip.split(chunks)])
        torch.testing.assert_close(logits, whole, rtol=1e-9, atol=1e-11)


def test_state_dict_carries_everything_inference_needs() -> None:
    clip, labels = small_batch()
    options: dict[str, Any] = {"widths": TINY, "inference_threshold": "fixed"}
    model = VGGSNN(2, 3, **options).double()
    for chunks in ([1, 1, 1, 1], [4]):
        train_batch(model, clip, labels, chunks)
    fresh = VGGSNN(2, 3, **options).double()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.eval()(clip), model.eval()(clip))
    # with fixed thresholds, of each sample alone
    torch.testing.assert_close(model(clip[:, 1:2]), model(clip)[:, 1:2])


# --- dtypes and devices ---


@each_method
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_model_of_any_dtype_trains_and_infers(method: str, dtype: torch.dtype) -> None:
    clip, labels = small_batch(dtype)
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).to(dtype)
    chunks = [4] if method == "bptt" else [2, 2]
    assert math.isfinite(train_batch(model, clip, labels, chunks))
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == dtype
        assert parameter.grad.isfinite().all()
    for name, buffer in model.named_buffers():
        assert buffer.isfinite().all(), name
        assert buffer.dtype == dtype or not buffer.is_floating_point()
    logits = model.eval()(clip)
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@each_method
def test_autocast_to_bfloat16(method: str) -> None:
    clip, labels = small_batch(torch.float32)
    torch.manual_seed(0)
    model = VGGSNN(2, 3, widths=TINY, **METHODS[method])
    torch.manual_seed(0)
    exact = VGGSNN(2, 3, widths=TINY, **METHODS[method])
    chunks = [4] if method == "bptt" else [2, 2]
    want = train_batch(exact, clip, labels, chunks)
    with torch.autocast("cpu", torch.bfloat16):
        loss = train_batch(model, clip, labels, chunks)
        logits = model.eval()(clip)
    assert loss == pytest.approx(want, rel=0.05)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    # The first layer sees the same currents but for bfloat16's rounding of them
    first, of_exact = model.features[0].norm, exact.features[0].norm
    assert first.running_var.dtype == torch.float32
    torch.testing.assert_close(first.running_var, of_exact.running_var, rtol=1e-2, atol=0)
    torch.testing.assert_close(first.running_mean, of_exact.running_mean, rtol=0, atol=1e-2)


@pytest.mark.gpu
@online_method
def test_a_gpu_trains_like_a_cpu(method: str) -> None:
    clip, labels = small_batch()
    results = []
    for device in ("cpu", "cuda"):
        torch.manual_seed(5)
        model = VGGSNN(2, 3, widths=TINY, **METHODS[method]).double().to(device)
        train_batch(model, clip.to(device), labels.to(device), [3, 1])
        gradients = {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}
        results.append((gradients, {name: b.cpu() for name, b in model.named_buffers()}))
    torch.testing.assert_close(results[0], results[1], rtol=1e-8, atol=1e-9)
