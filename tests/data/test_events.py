import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from steadyspike.data.events import Events, integrate


def events(*columns: list[int]) -> Events:
    t, x, y, p = columns
    return Events(np.array(t, np.int64), *(np.array(v, np.uint8) for v in (x, y, p)))


def test_seven_events_make_three_hand_counted_frames() -> None:
    seven = events(
        [1, 2, 3, 4, 5, 6, 7], [0, 0, 1, 2, 2, 2, 0], [0, 0, 0, 1, 1, 2, 2], [0] * 6 + [1]
    )
    frames = integrate(seven, 3, side=3)
    assert frames.shape == (3, 2, 3, 3)
    assert frames[:, 0].tolist() == [
        [[2, 0, 0], [0, 0, 0], [0, 0, 0]],  # events 1 and 2
        [[0, 1, 0], [0, 0, 1], [0, 0, 0]],  # 3 and 4
        [[0, 0, 0], [0, 0, 1], [0, 0, 1]],  # 5, 6 and, in the other channel, 7
    ]
    assert frames[2, 1].tolist() == [[0, 0, 0], [0, 0, 0], [1, 0, 0]]
    assert frames[:2, 1].sum() == 0


@given(number=st.integers(0, 300), steps=st.integers(1, 25), seed=st.integers(0, 99))
def test_frames_are_what_counting_one_by_one_gives(number: int, steps: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    x, y, p = (random.integers(0, below, number).astype(np.uint8) for below in (6, 6, 2))
    expected = np.zeros((steps, 2, 6, 6), int)
    share = number // steps
    for n in range(number):
        frame = min(n // share, steps - 1) if share else steps - 1
        expected[frame, p[n], y[n], x[n]] += 1
    assert np.array_equal(integrate(Events(np.arange(number), x, y, p), steps, 6), expected)


def test_an_interval_excludes_its_end_even_if_times_run_backwards() -> None:
    backwards = events([5, 3, 9, 4, 5], [0, 1, 2, 3, 4], [0] * 5, [0] * 5)
    assert backwards.between(4, 9).x.tolist() == [0, 3, 4]
