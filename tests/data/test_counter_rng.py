import hashlib
import math

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from steadyspike.data.counter_rng import (
    CROP_COLUMN,
    CROP_ROW,
    FLIP,
    derive_seed,
    random_integers,
    splitmix,
)

word = st.one_of(st.integers(0, 2**40), st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1))
purpose = st.lists(word, max_size=4).map(tuple)


def test_a_derived_seed_is_the_sha256_of_its_words() -> None:
    digest = hashlib.sha256(b"7\0order\x003").digest()
    assert derive_seed(7, "order", 3) == int.from_bytes(digest[:8], "little") // 2
    assert derive_seed(0, "init") == 3882801008874444624


@given(st.sets(st.tuples(st.integers(0, 2**63 - 1), purpose), min_size=2, max_size=20))
@example({(1, ("ab", "c")), (1, ("a", "bc")), (1, ("abc",)), (1, (1, 11)), (1, (11, 1))})
def test_no_two_purposes_share_a_seed(asked: set[tuple[int, tuple[str | int, ...]]]) -> None:
    spelled = {(str(seed), *map(str, words)) for seed, words in asked}
    seeds = {derive_seed(seed, *words) for seed, words in asked}
    assert len(seeds) == len(spelled)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_splitmix_is_the_published_one() -> None:
    # The first outputs of the authors' C program from the state 1234567.
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    got = splitmix(torch.tensor(1234567), torch.arange(1, 4)).tolist()
    assert [word % 2**64 for word in got] == published


def test_the_numbers_never_change() -> None:
    indices = torch.tensor([0, 1, 59_999])
    assert random_integers(0, 0, indices, FLIP, 1000).tolist() == [98, 812, 679]
    assert random_integers(7, 3, indices, CROP_ROW, 1000).tolist() == [591, 230, 35]


@pytest.mark.parametrize("below", [2, 9, 1000])
@pytest.mark.parametrize("draw", [FLIP, CROP_ROW, CROP_COLUMN])
def test_numbers_are_uniform(below: int, draw: int) -> None:
    counts = random_integers(3, 5, torch.arange(100_000), draw, below).bincount()
    assert len(counts) == below
    expected = 100_000 / below
    chi_squared = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi_squared - (below - 1)) < 5 * math.sqrt(2 * (below - 1))


def test_seed_epoch_draw_and_index_give_independent_numbers() -> None:
    indices = torch.arange(20_000)

    def number(seed: int = 0, epoch: int = 0, draw: int = 0, shift: int = 0) -> Tensor:
        return random_integers(seed, epoch, indices + shift, draw, 1000).double()

    base = number()
    for other in (number(seed=1), number(epoch=1), number(draw=1), number(shift=1)):
        assert abs(float(torch.corrcoef(torch.stack([base, other]))[0, 1])) < 5 / math.sqrt(20_000)
        assert (base == other).double().mean() < 0.003
