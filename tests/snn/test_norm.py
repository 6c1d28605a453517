"""What the norms compute, and its gradients: stored numbers, autograd, the framework's own."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn

from golden import assert_golden, described, load
from snn.norms import NORMS, by_equations, every_norm, present, warm
from steadyspike import sequence
from steadyspike.snn.neuron import LIF
from steadyspike.snn.norm import OSR

GOLDEN = load("osr_layer")


# --- stored numbers ---


@pytest.mark.parametrize("chunks", [(1, 1, 1), (2, 1), (3,)], ids=str)
@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["norm"])
def test_golden(case: dict[str, Any], chunks: tuple[int, ...]) -> None:
    norm = NORMS[case["norm"]](3, eps=GOLDEN["eps"]).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(case["gamma"], dtype=torch.float64))
        norm.bias.copy_(torch.tensor(case["beta"], dtype=torch.float64))
    for number, batch in enumerate(case["batches"]):
        assert_golden(norm.running_mean, batch["running_mean_used"], f"mean used, batch {number}")
        assert_golden(norm.running_var, batch["running_var_used"], f"variance used, batch {number}")
        first = 0
        with sequence(norm, steps=3):
            for k in chunks:
                steps = batch["steps"][first : first + k]
                where = f"batch {number}, steps {first} to {first + k - 1}:"
                x = torch.stack([described(case["shape"], step["x"]) for step in steps])
                x.requires_grad_()
                norm.zero_grad()
                y = norm(x)
                y.backward(torch.stack([described(case["shape"], s["grad_y"]) for s in steps]))
                assert x.grad is not None
                assert_golden(y, [v for step in steps for v in step["y"]], f"{where} y")
                assert_golden(x.grad, [v for s in steps for v in s["grad_x"]], f"{where} grad x")
                for parameter, name in ((norm.weight, "grad_gamma"), (norm.bias, "grad_beta")):
                    stored = torch.tensor([step[name] for step in steps], dtype=torch.float64)
                    assert parameter.grad is not None
                    assert_golden(parameter.grad, stored.sum(0), f"{where} {name}")
                first += k
    assert_golden(norm.running_mean, case["running_mean_after"], "running mean after")
    assert_golden(norm.running_var, case["running_var_after"], "running variance after")


# --- gradients ---


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same numbers in other strides."""
    if layout == "channels_last":
        return values.movedim(2, -1).contiguous().movedim(-1, 2)
    if layout == "batch_first":
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    if layout == "strided":
        return torch.stack([values, torch.full_like(values, math.nan)], -1)[..., 0]
    return values


LAYOUTS = ("contiguous", "channels_last", "batch_first", "strided")


@every_norm
@given(
    k=st.integers(1, 4),
    n=st.integers(1, 5),
    c=st.integers(1, 5),
    space=st.sampled_from([(), (1,), (7,), (1, 1), (3, 5), (4, 4), (2, 3, 2)]),
    layout=st.sampled_from(LAYOUTS),
    gradient_layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)
@example(k=3, n=1, c=2, space=(), layout="contiguous", gradient_layout="contiguous", seed=0)
@example(k=1, n=4, c=3, space=(3, 5), layout="channels_last", gradient_layout="strided", seed=0)
def test_gradients_equal_autograd_through_the_equations(
    kind: str,
    k: int,
    n: int,
    c: int,
    space: tuple[int, ...],
    layout: str,
    gradient_layout: str,
    seed: int,
) -> None:
    norm = warm(NORMS[kind](c, eps=1e-2), seed)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(k, n, c, *space, generator=generator, dtype=torch.float64) * 1.5 + 0.5
    upstream = torch.randn(values.shape, generator=generator, dtype=torch.float64)
    x = laid_out(values, layout).requires_grad_()
    inputs = (x, norm.weight, norm.bias)
    want = by_equations(kind, norm, x)
    want_gradients = torch.autograd.grad(want, inputs, upstream)
    got = present(norm, x)
    gradients = torch.autograd.grad(got, inputs, laid_out(upstream, gradient_layout))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-10)
    for name, gradient, wanted in zip(
        ("x", "weight", "bias"), gradients, want_gradients, strict=True
    ):
        torch.testing.assert_close(
            gradient, wanted, rtol=1e-8, atol=1e-9, msg=lambda m, name=name: f"{name}: {m}"
        )


@every_norm
def test_backward_leaves_what_it_was_given_untouched(kind: str) -> None:
    norm = warm(NORMS[kind](3))
    x = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64).requires_grad_()
    upstream = torch.randn_like(x)
    kept = x.detach().clone(), upstream.clone()
    y = present(norm, x)
    (first,) = torch.autograd.grad(y, x, upstream, retain_graph=True)
    (second,) = torch.autograd.grad(y, x, upstream)
    assert torch.equal(first, second)
    assert torch.equal(x, kept[0])
    assert torch.equal(upstream, kept[1])


@every_norm
def test_backward_may_wait_until_the_presentation_is_over(kind: str) -> None:
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64)
    gradients = []
    for waits in (False, True):
        norm = warm(NORMS[kind](2))
        with sequence(norm, steps=2):
            loss = norm(x).square().sum()
            if not waits:
                loss.backward()
        if waits:  # after the statistics were folded in
            loss.backward()
        gradients.append(norm.weight.grad)
    assert torch.equal(*gradients)


@every_norm
def test_gradient_of_a_sum(kind: str) -> None:
    """Its gradient arrives as one expanded number, and a normalization's own is then 0."""
    norm = warm(NORMS[kind](2))
    scale = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
    x = torch.randn(2, 3, 2, 4, dtype=torch.float64).requires_grad_()
    present(norm, x).sum().backward()
    assert x.grad is not None
    if kind == "linear":
        torch.testing.assert_close(x.grad, scale.reshape(2, 1).expand_as(x))
    else:
        torch.testing.assert_close(x.grad, torch.zeros_like(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(norm.bias.grad, torch.full((2,), 24.0, dtype=torch.float64))


@every_norm
def test_no_gradient_reaches_other_steps_or_the_statistics(kind: str) -> None:
    norm = warm(NORMS[kind](3))
    x = torch.randn(3, 4, 3, 2, 2, dtype=torch.float64).requires_grad_()
    y = present(norm, x)
    (gradient,) = torch.autograd.grad((y[1] ** 2).sum(), x)
    assert gradient[1].abs().max() > 0
    assert gradient[0].abs().max() == 0
    assert gradient[2].abs().max() == 0
    assert not norm.running_mean.requires_grad
    assert not norm.running_var.requires_grad


@every_norm
@given(chunks=st.lists(st.integers(1, 3), min_size=1, max_size=5), seed=st.integers(0, 1000))
def test_chunks_do_not_matter(kind: str, chunks: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    shape = (sum(chunks), 3, 2, 3, 3)
    x, upstream = torch.randn(2, *shape, generator=generator, dtype=torch.float64)
    results = []
    for split in (chunks, [1] * sum(chunks), [sum(chunks)]):
        norm = warm(NORMS[kind](2))
        leaf = x.clone().requires_grad_()
        y = present(norm, leaf, split)
        y.backward(upstream)
        results.append(
            [y, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.state_dict().values()]
        )
    for other in results[1:]:
        for got, want in zip(results[0], other, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


# --- forward ---


def test_osr_forward_of_training_is_that_of_inference() -> None:
    norm = warm(OSR(3))
    x = torch.randn(3, 4, 3, 5, dtype=torch.float64)
    inference = norm.eval()(x)
    torch.testing.assert_close(present(norm.train(), x), inference, rtol=1e-12, atol=1e-13)


@every_norm
def test_inference_is_batch_norm_with_running_statistics(kind: str) -> None:
    norm = warm(NORMS[kind](3)).eval()
    x = torch.randn(3, 4, 3, 5, 5, dtype=torch.float64).requires_grad_()
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    want = F.batch_norm(
        x.flatten(0, 1), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    ).reshape(x.shape)
    inputs = (x, norm.weight, norm.bias)
    upstream = torch.randn_like(want)
    wanted = torch.autograd.grad(want, inputs, upstream)
    for y in (norm(x), present(norm, x, [1, 2])):
        torch.testing.assert_close(y, want)
        for got, gradient in zip(torch.autograd.grad(y, inputs, upstream), wanted, strict=True):
            torch.testing.assert_close(got, gradient)
    for name, tensor in norm.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@every_norm
@pytest.mark.parametrize("still", [False, True])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("fused", [False, True])
def test_an_offset_is_that_of_the_currents(
    kind: str, fused: bool, training: bool, still: bool
) -> None:
    """All as if it had been added to them, in the neurons' operation too."""
    x = torch.randn(3, 4, 3, 5, 5, dtype=torch.float64)
    x = x[:1].expand(x.shape) if still else x
    offset = torch.tensor([0.5, -30.0, 4.0], dtype=torch.float64).requires_grad_()
    results = []
    for apart in (False, True):
        norm, neuron = warm(NORMS[kind](3)), LIF(stabilize_threshold=True).double()
        leaf = x[: 1 if still and fused else 3].clone().requires_grad_()
        currents = leaf if apart else leaf + offset.view(-1, 1, 1)
        kept = offset if apart else None
        model = nn.ModuleList([norm, neuron] if fused else [norm]).train(training)
        with sequence(model, steps=3):
            y = neuron(currents, norm, 3, kept) if fused else norm(currents.expand(x.shape), kept)
            weights = torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view_as(y)
            inputs = [leaf, norm.weight, norm.bias, offset]
            grads = torch.autograd.grad((y * weights).sum(), inputs)
        results.append([y, *grads, *norm.buffers()])
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-9)
    of_offset = results[1][4]
    assert bool((of_offset == 0).all()) == (training and kind != "linear")


@every_norm
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_currents_keep_their_dtype(kind: str, dtype: torch.dtype, training: bool) -> None:
    norm = NORMS[kind](3).to(dtype).train(training)
    x = torch.randn(2, 4, 3, 5, dtype=dtype).requires_grad_()
    y = present(norm, x)
    y.sum().backward()
    assert y.dtype == dtype
    for tensor in (x, norm.weight, norm.bias):
        assert tensor.grad is not None
        assert tensor.grad.dtype == dtype
        assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 5), (4, 3, 5, 5)], ids=str)
@every_norm
def test_wrong_shape_is_named(kind: str, shape: tuple[int, ...]) -> None:
    norm = NORMS[kind](3)
    with pytest.raises(ValueError, match=r"K, N, 3"), sequence(norm, steps=shape[0]):
        norm(torch.zeros(shape))


# --- names ---


@pytest.mark.parametrize(("kind", "momentum"), [("osr", 0.1), ("per_step", 0.1), ("linear", 0.01)])
def test_names_and_defaults(kind: str, momentum: float) -> None:
    norm = NORMS[kind](5)
    assert (norm.eps, norm.momentum) == (1e-4, momentum)
    assert [name for name, _ in norm.named_parameters()] == ["weight", "bias"]
    state = norm.state_dict()
    assert set(state) - {"fallbacks"} == {"weight", "bias", "running_mean", "running_var"}
    assert ("fallbacks" in state) == (kind == "osr")
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        assert torch.equal(state[name], torch.full((5,), float(value))), name
    assert NORMS[kind](5, eps=1e-3, momentum=0.5).eps == 1e-3
    assert NORMS[kind](5, eps=1e-3, momentum=0.5).momentum == 0.5
