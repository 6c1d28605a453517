"""The libraries compared with are pinned apart, beside the very packages that training has."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+?)(?: ;.*)? \\$", re.MULTILINE)


def pins(name: str) -> set[tuple[str, str]]:
    return set(PIN.findall((ROOT / name).read_text()))


def test_the_peers_are_pinned_with_hashes_and_no_host() -> None:
    text = (ROOT / "requirements-peers.lock").read_text()
    found = pins("requirements-peers.lock")
    assert {"spikingjelly", "snntorch", "torch"} <= {name for name, _ in found}
    assert text.count("--hash=sha256:") >= len(found)
    assert "://" not in text
    assert "--index" not in text


def test_what_training_needs_too_has_the_same_version() -> None:
    peers, own = pins("requirements-peers.lock"), pins("requirements.lock")
    shared = {name for name, _ in peers} & {name for name, _ in own}
    assert "torch" in shared
    assert {pin for pin in peers if pin[0] in shared} <= own


def test_training_needs_no_peer() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    peers = {re.split(r"[=<>]", name)[0] for name in project["optional-dependencies"]["peers"]}
    assert not peers & {name for name, _ in pins("requirements.lock")}
