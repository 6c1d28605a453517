"""The peers are pinned in a file of their own, beside the very packages that training has."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((ROOT / name).read_text()))


def test_peers_are_pinned_with_hashes_and_what_training_needs_too_is_the_same() -> None:
    peers, own = pins("requirements-peers.lock"), pins("requirements.lock")
    peer_names, own_names = ({name for name, _ in pinned} for pinned in (peers, own))
    text = (ROOT / "requirements-peers.lock").read_text()
    assert {"spikingjelly", "snntorch", "torch"} <= peer_names
    assert not {"spikingjelly", "snntorch"} & own_names
    assert text.count("--hash=sha256:") >= len(peers)
    assert "://" not in text
    assert "torch" in own_names
    assert {pin for pin in peers if pin[0] in own_names} <= own
