"""The locks of optional packages pin the same versions as training's, for packages in both."""

import re

import pytest

from tiny import REPOSITORY

PIN = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


@pytest.mark.parametrize(
    ("lock", "packages"),
    [("peers", {"spikingjelly", "snntorch"}), ("export", {"nir", "onnx", "sinabs", "norse"})],
)
def test_they_are_pinned_beside_the_packages_of_training(lock: str, packages: set[str]) -> None:
    text = (REPOSITORY / f"requirements-{lock}.lock").read_text()
    optional = PIN.findall(text)
    own = dict(PIN.findall((REPOSITORY / "requirements.lock").read_text()))
    assert packages | {"torch"} <= dict(optional).keys()
    assert packages.isdisjoint(own)  # which every trained stage depends on
    assert text.count("--hash=sha256:") >= len(optional)
    assert {name: version for name, version in optional if name in own}.items() <= own.items()
