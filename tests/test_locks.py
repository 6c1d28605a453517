"""The peers' lock file pins the same versions as training's, for the packages in both."""

import re

from tiny import REPOSITORY

PIN = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def test_peers_are_pinned_beside_the_packages_of_training() -> None:
    text = (REPOSITORY / "requirements-peers.lock").read_text()
    peers = PIN.findall(text)
    own = dict(PIN.findall((REPOSITORY / "requirements.lock").read_text()))
    assert {"spikingjelly", "snntorch", "torch"} <= dict(peers).keys()
    assert text.count("--hash=sha256:") >= len(peers)
    assert {name: version for name, version in peers if name in own}.items() <= own.items()
