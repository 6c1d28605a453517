"""Random choices derive from what they are for, never from what was drawn before."""

import hashlib


def derive_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose, such as ``derive_seed(seed, "order", epoch)``.

    SHA-256 of the words decides, so two purposes share nothing, and neither the order in which
    seeds are asked for nor the number of workers or ranks can change one.
    """
    words = "\0".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(words.encode()).digest()[:8], "little") >> 1
