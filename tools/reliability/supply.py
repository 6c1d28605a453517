"""Supply chain: what is installed and known of it, what an image and its containers hold."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import container
import layers
from elsewhere import HERE, REPOSITORY, check_out
from rows import Row

sys.path.append(str(REPOSITORY / "tools"))
import audit
import licences

COMMAND = ".venv/bin/python tools/reliability supply"
#: An image, containers: the claims that are not tried without an engine.
OF_THE_IMAGE = (
    "The image has a bill of materials, valid by CycloneDX's schema, with every package in it",
    "The image's history and settings hold no secret, index or path of the machine that built it",
    "Nor do its layers, deleted files included",
)
OF_CONTAINERS = {
    "writes": "A service's file system is read-only but for its mounts",
    "capabilities": "A service holds no capability",
    "privileges": "A service is no root and cannot gain privileges",
}


def measure(work: Path, few: bool) -> Iterator[Row]:
    """The rows of this part."""
    yield hashes()
    yield known_vulnerabilities()
    yield listed_licences()
    obstacle = container.engine_obstacle()
    root = work / "checkout"
    if not obstacle:
        root = check_out(work, HERE)
        obstacle = container.build(root)
    if obstacle:
        for claim in (*OF_THE_IMAGE, *OF_CONTAINERS.values()):
            yield Row(claim, 0, 1, f"not tried: {obstacle}", COMMAND)
        return
    yield bill_of_materials(work)
    words = layers.of_this_machine(REPOSITORY, root)
    yield secrets_in_history(words)
    if not few:
        yield secrets_in_layers(words)
    yield from rights(root)


def hashes() -> Row:
    """Every package that a lock pins has hashes, and no address of an index."""
    pinned, hashed = 0, 0
    for lock in audit.locks():
        entries = re.split(r"(?m)^(?=[A-Za-z0-9])", lock.read_text())
        named = [entry for entry in entries if re.match(r"[A-Za-z0-9._-]+(?:\[[^]]*\])?==", entry)]
        pinned += len(named)
        hashed += sum("--hash=sha256:" in entry and "://" not in entry for entry in named)
    return Row(
        "Every package that a lock pins is pinned by SHA-256, from no index by name",
        hashed,
        pinned,
        f"in {len(audit.locks())} locks",
        COMMAND,
    )


def known_vulnerabilities() -> Row:
    """The step of CI, which passes where nothing could be asked but then says so."""
    claim = "The locks are looked up among known vulnerabilities, or it is said why not"
    made = subprocess.run([REPOSITORY / "tools" / "audit_tools.sh"], capture_output=True, text=True)
    if made.returncode:
        return Row(claim, 0, 1, "not tried: pip-audit could not be installed", COMMAND)
    result = audit.audit(audit.locks())
    for line in result.vulnerable:
        print(f"supply: vulnerable: {line}", file=sys.stderr)
    return Row(claim, int(result.passes), 1, result.told(), COMMAND)


def listed_licences() -> Row:
    """docs/licences.md names every package of the locks at its version, with its licence."""
    page = licences.PAGE.read_text() if licences.PAGE.exists() else ""
    told = licences.licences()
    rows = {
        name: licences.row(name, versions, told[name])
        for name, versions in licences.pinned().items()
    }
    missing = [name for name, row in rows.items() if not told[name] or row not in page]
    if missing:
        print(f"supply: {licences.PAGE.name}: missing: {', '.join(missing)}", file=sys.stderr)
    return Row(
        "docs/licences.md lists the licence of every package that is installed, at its version",
        len(rows) - len(missing),
        len(rows),
        f"{len(set(told.values()))} different licences",
        COMMAND,
    )


def bill_of_materials(work: Path) -> Row:
    """tools/sbom.sh, and the packages counted once more in another way."""
    out = work / "sbom.json"
    done = subprocess.run(
        [REPOSITORY / "tools" / "sbom.sh", container.IMAGE, out], capture_output=True, text=True
    )
    site = "/opt/venv/lib/python3*/site-packages"
    count = f"dpkg-query --list | grep -c ^ii; ls -d {site}/*.dist-info | wc -l"
    run = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "sh", container.IMAGE]
    told = subprocess.run([*run, "-c", count], capture_output=True, text=True)
    there = sum(map(int, told.stdout.split()))
    if done.returncode:
        print(f"supply: {done.stderr}", file=sys.stderr)
        return Row(OF_THE_IMAGE[0], 0, max(there, 1), "none written", COMMAND)
    bill = json.loads(out.read_text())
    kinds = [component["purl"].partition("/")[0] for component in bill["components"]]
    licensed = sum("licenses" in component for component in bill["components"])
    return Row(
        OF_THE_IMAGE[0],
        len(kinds),
        there,
        f"CycloneDX {bill['specVersion']}: {kinds.count('pkg:deb')} packages of the distribution, "
        f"{kinds.count('pkg:pypi')} of Python; of {licensed} the licence",
        COMMAND,
    )


def secrets_in_history(words: layers.Words) -> Row:
    """Build steps, variables, labels."""
    said = layers.history(container.IMAGE)
    guilty = {where: words.found_in(text.encode()) for where, text in said.items()}
    for where, found in guilty.items():
        if found:
            print(f"supply: {where}: {', '.join(sorted(found))}", file=sys.stderr)
    clean = sum(not found for found in guilty.values())
    figures = f"steps and settings searched for {len(words.of)} words of this machine"
    return Row(OF_THE_IMAGE[1], clean, len(said), figures, COMMAND)


def secrets_in_layers(words: layers.Words) -> Row:
    """Every file that any layer holds."""
    files, findings = layers.scan(container.IMAGE, words)
    for line in findings[:20]:
        print(f"supply: {line}", file=sys.stderr)
    guilty = len({line.partition(": ")[0] for line in findings})
    return Row(OF_THE_IMAGE[2], files - guilty, files, "files of all layers", COMMAND)


def rights(root: Path) -> Iterator[Row]:
    """What each service of Compose may do, a cluster's too, tried from within."""
    answers = dict(container.probed(root))
    for service, told in answers.items():
        if set(told.values()) != {"no"}:
            print(f"supply: {service}: {told}", file=sys.stderr)
    for asked, claim in OF_CONTAINERS.items():
        held = sum(told.get(asked) == "no" for told in answers.values())
        yield Row(claim, held, len(answers), f"asked within {', '.join(answers)}", COMMAND)
