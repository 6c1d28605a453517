import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.kernels.stable_sqrt import stable_sqrt


@given(st.floats(1e-30, 1e30), st.sampled_from([torch.float32, torch.float64]))
def test_the_square_root_to_rounding(value: float, dtype: torch.dtype) -> None:
    found = stable_sqrt(torch.full((17,), value, dtype=dtype))
    assert found.dtype == dtype
    assert found[0].item() == pytest.approx(math.sqrt(value), rel=4 * torch.finfo(dtype).eps)
    assert (found == found[0]).all()


def test_of_nothing_and_of_what_has_none() -> None:
    assert stable_sqrt(torch.zeros(3)).tolist() == [0, 0, 0]
    assert stable_sqrt(torch.tensor(-1.0)).isnan()
    assert stable_sqrt(torch.tensor(math.inf)).isinf()
