"""What all tests share: a fixed seed, and property tests that try the same examples every time."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

TESTS = Path(__file__).parent
sys.path.append(str(TESTS))  # for `golden`, wherever a test lies

settings.register_profile("steadyspike", deadline=None, derandomize=True, max_examples=30)
settings.load_profile("steadyspike")
torch.set_num_threads(1)  # shapes here are tiny; threads would only wait for each other


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
