"""The installed Python packages and their licences, as JSON, from what each tells of itself.

Alone in its file, and of the standard library, so that the interpreter of an image can read it:
``docker run --interactive IMAGE python - < tools/packages.py``.
"""

import json
import re
from importlib.metadata import PackageMetadata, distributions

#: What packages write instead of an SPDX expression, in small letters.
SPDX = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause license": "BSD-3-Clause",
    "gpl-3.0": "GPL-3.0-only",
    "gplv2 with linking exception": "GPL-2.0-only WITH GCC-exception-2.0",
    "gplv2 | eplv1": "GPL-2.0-only OR EPL-1.0",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "nvidia proprietary software": "LicenseRef-NVIDIA-Proprietary",
    "python software foundation license": "PSF-2.0",
    "the unlicense (unlicense)": "Unlicense",
    "zope public license": "ZPL-2.1",
}
#: Not told by the package itself. The first only names others, which have this licence.
TOLD_ELSEWHERE = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+( (AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def canonical(name: str) -> str:
    """As locks and indexes write it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence(metadata: PackageMetadata) -> str:
    """An SPDX expression, or the family that the package names (``BSD``); empty if none is told."""
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    known = SPDX.get(text.lower())
    if known:
        return known
    # Some hold the whole text, or "Dual License".
    if _EXPRESSION.fullmatch(text) and (text.lower() != "bsd"):
        return text
    classifiers = metadata.get_all("Classifier") or []
    families = [
        each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")
    ]
    told = [
        SPDX.get(family.lower(), family.removesuffix(" License"))
        for family in families
        if family != "OSI Approved"
    ]
    if told:
        return " OR ".join(told)
    return "BSD" if text.lower() == "bsd" else TOLD_ELSEWHERE.get(canonical(metadata["Name"]), "")


def packages() -> list[dict[str, str]]:
    """Name as locks write it, version, licence and summary of each, by name."""
    found = {
        canonical(one.metadata["Name"]): {
            "name": canonical(one.metadata["Name"]),
            "version": one.version,
            "licence": licence(one.metadata),
            "summary": str(one.metadata.get("Summary") or ""),
        }
        for one in distributions()
    }
    return [found[name] for name in sorted(found)]


if __name__ == "__main__":
    print(json.dumps(packages()))
