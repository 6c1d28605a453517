"""The bill of materials of an image: every package of its distribution and of Python.

Asked of the image itself, so that nothing is listed that is not in it. Called by tools/sbom.sh.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from steadyspike.files import write_atomically

SCHEMA = SchemaVersion.V1_6
PROGRAM = "steadyspike"
PACKAGES = Path(__file__).with_name("packages.py")
#: One line a package of the distribution, then the licences that its copyright file names, where
#: a machine can read it.
SYSTEM = r"""
. /etc/os-release
echo "$ID $VERSION_ID"
dpkg-query --show --showformat '${Package}\t${Version}\t${Architecture}\n'
echo
cd /usr/share/doc
for file in */copyright; do
    if head -n 5 "$file" 2> /dev/null | grep -q '^Format:'; then
        sed -n "s|^License: *|${file%/*}\t|p" "$file"
    fi
done
"""


class NoImage(Exception):
    """It cannot be asked; says why."""


def ask(image: str, *command: str, program: str = "") -> str:
    """What a command prints in a container that can reach and change nothing."""
    done = subprocess.run(
        [
            *("docker", "run", "--rm", "--interactive", "--network", "none", "--read-only"),
            *("--cap-drop", "ALL", "--entrypoint", command[0], image, *command[1:]),
        ],
        input=program,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise NoImage(f"{image}: {said[0]}")
    return done.stdout


def inspect(image: str) -> dict[str, Any]:
    """What the engine knows of it."""
    done = subprocess.run(["docker", "image", "inspect", image], capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["docker image inspect failed"]
        raise NoImage(f"{image}: {said[-1]}")
    facts: dict[str, Any] = json.loads(done.stdout)[0]
    return facts


def python_components(packages: Iterable[dict[str, str]]) -> list[Component]:
    """Of what tools/packages.py prints."""
    factory = LicenseFactory()
    return [
        Component(
            name=package["name"],
            version=package["version"],
            description=package["summary"] or None,
            type=ComponentType.APPLICATION if package["name"] == PROGRAM else ComponentType.LIBRARY,
            licenses=[factory.make_from_string(package["licence"])] if package["licence"] else (),
            purl=PackageURL("pypi", None, package["name"], package["version"]),
            bom_ref=f"pypi/{package['name']}@{package['version']}",
        )
        for package in packages
    ]


def system_components(told: str) -> list[Component]:
    """Of what `SYSTEM` prints."""
    heading, _, rest = told.partition("\n")
    distribution, _, release = heading.partition(" ")
    listed, _, copyrights = rest.partition("\n\n")
    licences: dict[str, set[str]] = {}
    for line in copyrights.splitlines():
        name, _, licence = line.partition("\t")
        if licence.strip():
            licences.setdefault(name, set()).add(licence.strip())
    components = []
    for line in listed.splitlines():
        name, version, architecture = line.split("\t")
        where = {"arch": architecture, "distro": f"{distribution}-{release}"}
        named: list[License] = [
            DisjunctiveLicense(name=each) for each in sorted(licences.get(name, ()))
        ]
        components.append(
            Component(
                name=name,
                version=version,
                licenses=named,
                purl=PackageURL("deb", distribution, name, version, where),
                bom_ref=f"deb/{name}@{version}:{architecture}",
            )
        )
    return components


def bill_of(image: str) -> str:
    """The bill as JSON, valid by the schema; NoImage where the image cannot be asked."""
    facts = inspect(image)
    labels = facts["Config"].get("Labels") or {}
    bom = Bom()
    whole = Component(
        name=labels.get("org.opencontainers.image.title", image),
        version=labels.get("org.opencontainers.image.revision"),
        type=ComponentType.CONTAINER,
        bom_ref="image",
        properties=[Property(name="steadyspike:image-id", value=facts["Id"])],
    )
    bom.metadata.component = whole
    python = json.loads(ask(image, "python", "-", program=PACKAGES.read_text()))
    parts = [
        *python_components(python),
        *system_components(ask(image, "sh", "-c", SYSTEM)),
    ]
    bom.components.update(parts)
    bom.register_dependency(whole, parts)
    text = make_outputter(bom, OutputFormat.JSON, SCHEMA).output_as_string(indent=2) + "\n"
    wrong = JsonStrictValidator(SCHEMA).validate_str(text)
    if wrong is not None:
        raise ValueError(f"not valid by CycloneDX {SCHEMA.to_version()}: {wrong}")
    return text


def main() -> int:
    image, *more = sys.argv[1:]
    out = Path(more[0] if more else "sbom.json")
    try:
        text = bill_of(image)
    except NoImage as error:
        print(f"sbom: {error}", file=sys.stderr)
        return 2
    write_atomically(out, text)
    count = len(json.loads(text)["components"])
    print(f"{out}: CycloneDX {SCHEMA.to_version()}, {count} components of {image}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
