"""A fixed seed for every test, the same examples in every run of a property test, GPU tests."""

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
