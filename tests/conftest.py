"""A fixed seed for every test, and the same examples in every run of a property test."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

TESTS = Path(__file__).parent
sys.path.append(str(TESTS))  # so that tests in folders can import `golden` and `tiny`

settings.register_profile("steadyspike", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("steadyspike")
torch.set_num_threads(1)  # tensors are tiny, and threads would cost more than they save


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
