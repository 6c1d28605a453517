import hashlib

from hypothesis import given
from hypothesis import strategies as st

from steadyspike.data.seeds import derive_seed

word = st.one_of(st.integers(0, 2**40), st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1))
purpose = st.lists(word, max_size=4).map(tuple)


def test_by_hand() -> None:
    digest = hashlib.sha256(b"7\0order\x003").digest()
    assert derive_seed(7, "order", 3) == int.from_bytes(digest[:8], "little") // 2
    assert derive_seed(0, "init") == 3882801008874444624


@given(st.integers(0, 2**63 - 1), purpose)
def test_is_what_a_generator_takes(seed: int, words: tuple[str | int, ...]) -> None:
    assert 0 <= derive_seed(seed, *words) < 2**63
    assert derive_seed(seed, *words) == derive_seed(seed, *words)


@given(st.sets(st.tuples(st.integers(0, 9), purpose), min_size=2, max_size=20))
def test_no_two_purposes_share_a_seed(asked: set[tuple[int, tuple[str | int, ...]]]) -> None:
    spelled = {(str(seed), *map(str, words)) for seed, words in asked}
    assert len({derive_seed(seed, *words) for seed, words in asked}) == len(spelled)


def test_a_shifted_boundary_is_another_purpose() -> None:
    seeds = {
        derive_seed(1, "ab", "c"),
        derive_seed(1, "a", "bc"),
        derive_seed(1, "abc"),
        derive_seed(1, "batch", 1, 11),
        derive_seed(1, "batch", 11, 1),
        derive_seed(11, "batch", 1),
    }
    assert len(seeds) == 6
