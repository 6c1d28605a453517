"""The norms' running statistics: of what, when they are folded in, and how accurately."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snn.norms import NORMS, every_norm, present, warm
from steadyspike import sequence
from steadyspike.snn.norm import OSR, LinearNorm, PerStepBatchNorm


@given(
    steps=st.integers(1, 6),
    n=st.integers(1, 5),
    space=st.sampled_from([(), (3,), (3, 5)]),
    seed=st.integers(0, 1000),
)
def test_all_time_statistics_are_those_of_all_steps_together(
    steps: int, n: int, space: tuple[int, ...], seed: int
) -> None:
    norm = warm(OSR(2))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    generator = torch.Generator().manual_seed(seed)
    # Steps far from each other, so that the variance between them counts
    far = torch.randn(steps, 1, 2, *[1] * len(space), generator=generator, dtype=torch.float64)
    x = torch.randn(steps, n, 2, *space, generator=generator, dtype=torch.float64) + 3 * far
    present(norm, x, [1] * steps)
    together = x.movedim(2, 0).flatten(1)
    torch.testing.assert_close(norm.running_mean, mean + 0.1 * (together.mean(1) - mean))
    torch.testing.assert_close(
        norm.running_var, var + 0.1 * (together.var(1, correction=0) - var), rtol=1e-9, atol=1e-12
    )


def test_per_step_statistics_leave_out_the_variance_between_steps() -> None:
    norm = warm(PerStepBatchNorm(2))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x = torch.randn(3, 4, 2, 5, dtype=torch.float64)
    x += torch.tensor([0.0, 5, -3]).reshape(3, 1, 1, 1)
    present(norm, x)
    torch.testing.assert_close(norm.running_mean, 0.9 * mean + 0.1 * x.mean((0, 1, 3)))
    within = x.var((1, 3), correction=0).mean(0)
    torch.testing.assert_close(norm.running_var, 0.9 * var + 0.1 * within)


def test_linear_statistics_take_unbiased_step_variances() -> None:
    norm = warm(LinearNorm(2))
    mean, var = norm.running_mean.clone(), norm.running_var.clone()
    x = torch.randn(3, 4, 2, 5, dtype=torch.float64)
    x += torch.tensor([0.0, 5, -3]).reshape(3, 1, 1, 1)
    present(norm, x)
    means = x.mean((1, 3))
    all_time = x.var((1, 3)).mean(0) + means.var(0, correction=0)
    torch.testing.assert_close(norm.running_mean, 0.99 * mean + 0.01 * means.mean(0))
    torch.testing.assert_close(norm.running_var, 0.99 * var + 0.01 * all_time)


@every_norm
def test_statistics_of_a_batch_are_folded_in_once_and_after_it(kind: str) -> None:
    norm = warm(NORMS[kind](2))
    x = torch.randn(4, 3, 2, 3, dtype=torch.float64)
    before = norm.running_mean.clone(), norm.running_var.clone()
    with sequence(norm, steps=4):
        for step in x.split(1):
            norm(step)
            assert torch.equal(norm.running_mean, before[0])
            assert torch.equal(norm.running_var, before[1])
    weight = 0.01 if kind == "linear" else 0.1
    torch.testing.assert_close(
        norm.running_mean, before[0] + weight * (x.mean((0, 1, 3)) - before[0])
    )


@every_norm
def test_momentum_is_the_weight_of_the_new_value(kind: str) -> None:
    norm = NORMS[kind](2, momentum=0.25).double()
    x = torch.randn(2, 8, 2, dtype=torch.float64) + 4
    present(norm, x)
    torch.testing.assert_close(norm.running_mean, 0.25 * x.mean((0, 1)))


# --- warming up ---


@every_norm
@pytest.mark.parametrize("chunk", [1, 3])
def test_warming_up_they_are_the_plain_mean_until_momentum_takes_over(
    kind: str, chunk: int
) -> None:
    momentum = 0.25
    norm = NORMS[kind](2, momentum=momentum, warm_up_statistics=True).double()
    batches = torch.randn(6, 3, 5, 2, 4, dtype=torch.float64) + 7
    means, variances = [], []
    for batch in batches:  # what each adds alone: with momentum 1 it replaces everything
        alone = NORMS[kind](2, momentum=1.0).double()
        present(alone, batch)
        means.append(alone.running_mean)
        variances.append(alone.running_var)
    for n in range(1, 5):
        present(norm, batches[n - 1], [chunk] * (3 // chunk))
        torch.testing.assert_close(norm.running_mean, torch.stack(means[:n]).mean(0))
        torch.testing.assert_close(norm.running_var, torch.stack(variances[:n]).mean(0))
    for n in (4, 5):
        before = norm.running_mean.clone()
        present(norm, batches[n])
        torch.testing.assert_close(norm.running_mean, before.lerp(means[n], momentum))


@every_norm
def test_warming_up_goes_on_from_a_state_dict(kind: str) -> None:
    x = torch.randn(3, 2, 8, 2, dtype=torch.float64)
    norm = NORMS[kind](2, warm_up_statistics=True).double()
    present(norm, x[0])
    again = NORMS[kind](2, warm_up_statistics=True).double()
    again.load_state_dict(norm.state_dict())
    for other in (norm, again):
        present(other, x[1])
    assert torch.equal(norm.running_var, again.running_var)
    # Evaluation counts no batch
    norm.eval()
    present(norm, x[2])
    assert norm.num_batches_tracked == 2


@every_norm
def test_statistics_without_a_count_are_warm_already(kind: str) -> None:
    x = torch.randn(2, 8, 2, dtype=torch.float64)
    plain, warmed = NORMS[kind](2).double(), NORMS[kind](2, warm_up_statistics=True).double()
    state = warm(NORMS[kind](2)).state_dict()
    plain.load_state_dict(state)
    warmed.load_state_dict(state)
    assert "num_batches_tracked" not in state
    for norm in (plain, warmed):
        present(norm, x)
    torch.testing.assert_close(warmed.running_mean, plain.running_mean)
    assert "num_batches_tracked" not in plain.state_dict()


@every_norm
def test_momentum_0_keeps_the_statistics_though_they_warm_up(kind: str) -> None:
    norm = warm(NORMS[kind](2, momentum=0.0, warm_up_statistics=True))
    before = norm.running_mean.clone()
    present(norm, torch.randn(2, 8, 2, dtype=torch.float64))
    assert torch.equal(norm.running_mean, before)


@pytest.mark.parametrize("kind", ["osr", "linear"])
@pytest.mark.parametrize("mean", [10.0, 300.0])
def test_variance_survives_a_large_mean_in_float32(kind: str, mean: float) -> None:
    """E[x²] - E[x]² of numbers far from 0 would be rounding noise, negative at worst."""
    norm = NORMS[kind](3, momentum=1.0)
    x = mean + 0.01 * torch.randn(4, 64, 3, 4, 4)
    present(norm, x)
    exact = x.double().movedim(2, 0).flatten(1).var(1, correction=0)
    torch.testing.assert_close(norm.running_var.double(), exact, rtol=1e-2, atol=0)


@every_norm
@pytest.mark.parametrize("how", ["module", "autocast"])
def test_bfloat16_statistics_are_gathered_in_float32(kind: str, how: str) -> None:
    x = (2 + 0.5 * torch.randn(3, 32, 2, 16, 16)).bfloat16()
    norm = NORMS[kind](2, momentum=1.0)
    if how == "module":
        norm = norm.bfloat16()
        y = present(norm, x)
        assert y.dtype == torch.bfloat16
    else:
        with torch.autocast("cpu", torch.bfloat16):
            y = present(norm, x)
        assert norm.running_var.dtype == torch.float32
    assert y.isfinite().all()
    # A sum over 8192 numbers in bfloat16 would be off by far more than its rounding of the result
    tolerance = 2**-8 if how == "module" else 1e-5
    together = x.double().movedim(2, 0).flatten(1)
    torch.testing.assert_close(norm.running_mean.double(), together.mean(1), rtol=tolerance, atol=0)
    torch.testing.assert_close(
        norm.running_var.double(),
        x.double().var((1, 3, 4), correction=0).mean(0)
        if kind == "per_step"
        else together.var(1, correction=0),
        rtol=max(tolerance, 2e-4 if kind == "linear" else 0),  # unbiased steps: n / (n - 1)
        atol=0,
    )
