"""What an image gives away: words of the machine that built it, in its history or its layers."""

import json
import os
import re
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

#: Variables of an environment that hold an address of an index, or what nobody else may know.
_INDEX = re.compile(r"^(?:PIP|UV)_\w*(?:INDEX|FIND_LINKS|TRUSTED_HOST)\w*$")
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|API_?KEY|PRIVATE_KEY", re.IGNORECASE)
#: What a secret looks like, whoever's.
FORMS = re.compile(
    rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{60}|\bAKIA[0-9A-Z]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bxox[abprs]-[A-Za-z0-9-]{20,}|https?://[^\s/:@]+:[^\s/@$]+@"
)
#: Others' packages, whose tests hold examples of such; this machine's words are searched there too.
_OTHERS = ("opt/venv/", "usr/")
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Words:
    """What must not be found: bytes, and what each is, which alone is ever shown."""

    of: Mapping[bytes, str]

    def found_in(self, content: bytes, forms: bool = True) -> set[str]:
        """What each is that is found."""
        found = {what for word, what in self.of.items() if word in content}
        if forms and FORMS.search(content):
            found.add("what looks like a secret")
        return found

    @property
    def longest(self) -> int:
        return max(map(len, self.of), default=0)


def of_this_machine(*folders: Path) -> Words:
    """Indexes and secrets that are set here, the host's name, and these folders."""
    words: dict[str, str] = {}
    settings = dict(os.environ)
    pip = [sys.executable, "-m", "pip", "config", "list"]
    told = subprocess.run(pip, capture_output=True, text=True).stdout
    for name, value in re.findall(r"(?m)^([\w.-]+)='(.*)'$", told):
        settings["PIP_" + name.rpartition(".")[2].upper().replace("-", "_")] = value
    for name, value in settings.items():
        if _INDEX.match(name):
            for part in value.split():
                words[part.rstrip("/")] = f"the value of {name}"
                if "@" in part:
                    words[urlsplit(part).netloc.rpartition("@")[0]] = f"the login of {name}"
        elif _SECRET.search(name) and len(value) >= 8:
            words[value] = f"the value of {name}"
    words[socket.gethostname()] = "the host's name"
    # /root is in every image.
    for folder in (*folders, Path.home()):
        words[str(folder)] = "a folder of the host"
    # Shorter ones are found by chance.
    return Words({word.encode(): what for word, what in words.items() if len(word) >= 8})


def history(image: str) -> dict[str, str]:
    """Every word that the engine keeps of an image beside its files, by where it stands."""
    shown = ["docker", "history", "--no-trunc", "--format", "{{json .}}", image]
    lines = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.splitlines()
    said = {
        f"history {k}": " ".join(map(str, json.loads(one).values())) for k, one in enumerate(lines)
    }
    inspected = subprocess.run(
        ["docker", "image", "inspect", image], capture_output=True, text=True, check=True
    )
    config: dict[str, Any] = json.loads(inspected.stdout)[0]["Config"]
    return said | {f"setting {name}": json.dumps(value) for name, value in config.items()}


def scan(image: str, words: Words) -> tuple[int, list[str]]:
    """How many files all layers hold, of those deleted later too; what was found, with the file."""
    files, findings = 0, []
    with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        for name, found in _scan_stream(saving.stdout, words):
            files += 1
            findings += [f"{name}: {what}" for what in sorted(found)]
    if saving.returncode:
        raise OSError(f"docker save {image} failed")
    return files, findings


def _scan_stream(stream: IO[bytes], words: Words) -> Iterator[tuple[str, set[str]]]:
    """Each file in the layers of what `docker save` writes."""
    with tarfile.open(fileobj=stream, mode="r|") as image:
        for part in image:
            content = image.extractfile(part)
            if content is None:
                continue
            # What is no layer is a description, which the history holds too.
            with suppress(tarfile.ReadError), tarfile.open(fileobj=content, mode="r|*") as layer:
                for member in layer:
                    file = layer.extractfile(member) if member.isfile() else None
                    if file is not None:
                        name = member.name.removeprefix("./")
                        yield name, _scan_file(file, words, not name.startswith(_OTHERS))


def _scan_file(file: IO[bytes], words: Words, forms: bool) -> set[str]:
    found: set[str] = set()
    before = b""
    while chunk := file.read(_CHUNK):
        found |= words.found_in(before + chunk, forms)
        before = chunk[-max(words.longest, 200) :]
    return found
