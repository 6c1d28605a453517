"""The peers are pinned in a file of their own, beside the very packages that training has."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def pins(name: str) -> dict[str, str]:
    return dict(PIN.findall((ROOT / name).read_text()))


def test_peers_are_pinned_with_hashes_and_what_training_needs_too_is_the_same() -> None:
    peers, own = pins("requirements-peers.lock"), pins("requirements.lock")
    text = (ROOT / "requirements-peers.lock").read_text()
    assert {"spikingjelly", "snntorch", "torch"} <= peers.keys()
    assert not {"spikingjelly", "snntorch"} & own.keys()
    assert text.count("--hash=sha256:") >= len(peers)
    assert "://" not in text
    shared = peers.keys() & own.keys()
    assert "torch" in shared
    assert {name: peers[name] for name in shared} == {name: own[name] for name in shared}
