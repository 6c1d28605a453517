"""Supply chain: what can be shown without an engine, and that each row can fail."""

import io
import json
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import container
import layers
import pytest
import supply
from elsewhere import REPOSITORY
from packages import licence, packages
from supply import audit, licences

LOCK = REPOSITORY / "requirements-uv.lock"


# Written apart: images hold this file, and their layers are searched for what looks like this.
MIRROR = "https://me:pass-word" + "@mirror.example/simple/"


def test_every_row_that_needs_an_engine_says_so_without_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container, "engine_obstacle", lambda: "no Docker engine answers")
    monkeypatch.setattr(supply, "known_vulnerabilities", supply.hashes)
    rows = list(supply.measure(tmp_path, few=True))
    claims = {*supply.OF_THE_IMAGE, *supply.OF_CONTAINERS.values()}
    without = [row for row in rows if row.claim in claims]
    assert {row.claim for row in without} == claims
    assert not any(row.holds for row in without)
    assert all(row.figures == "not tried: no Docker engine answers" for row in without)
    assert all(row.holds for row in rows if row not in without)


@pytest.mark.parametrize(
    "entry",
    ["numpy==2.4.1", "numpy==2.4.1 \\\n    --hash=md5:0", "a==1 --hash=sha256:0 # https://x"],
)
def test_a_package_without_a_hash_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"pip==1 \\\n    --hash=sha256:0\n    # via a\n{entry}\n")
    monkeypatch.setattr(audit, "locks", lambda: [lock])
    row = supply.hashes()
    assert (row.held, row.tried) == (1, 2)


# Known vulnerabilities


@pytest.fixture(scope="module")
def _tools() -> None:
    made = subprocess.run([REPOSITORY / "tools/audit_tools.sh"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"the audit's tools cannot be installed: {made.stderr.strip()[-200:]}")


class _Database(BaseHTTPRequestHandler):
    """As OSV's: of uv it knows one vulnerability."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        events = [{"introduced": "0"}, {"fixed": "999"}]
        ranges = [{"type": "ECOSYSTEM", "events": events}]
        affected = [{"package": {"ecosystem": "PyPI", "name": "uv"}, "ranges": ranges}]
        answer = {"vulns": [{"id": "OSV-1", "affected": affected}]} if name == "uv" else {}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Database)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("_tools")
def test_what_is_vulnerable_fails(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(audit.URL_VARIABLE, database)
    result = audit.audit([LOCK])
    assert not result.passes
    assert len(result.vulnerable) == 1
    assert "OSV-1, repaired in 999" in result.vulnerable[0]
    safe = tmp_path / "safe.lock"
    safe.write_text(f"packaging==26.3 --hash=sha256:{'0' * 64}\n")
    result = audit.audit([safe])
    assert result.passes
    assert result.told() == "1 locked packages looked up, 0 vulnerable"


@pytest.mark.usefixtures("_tools")
def test_nobody_to_ask_is_told_and_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(audit.URL_VARIABLE, "http://127.0.0.1:9/v1/query")
    told = subprocess.run(
        [sys.executable, REPOSITORY / "tools/audit.py", LOCK], capture_output=True, text=True
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout == (
        "audit: skipped, nothing was looked up: the database does not answer "
        "([Errno 111] Connection refused)\n"
    )


@pytest.mark.usefixtures("_tools")
def test_a_lock_that_cannot_be_read_is_a_failure(tmp_path: Path, database: str) -> None:
    broken = tmp_path / "broken.lock"
    broken.write_text("numpy==\n")
    result = audit.audit([broken])
    assert result.failed
    assert not result.passes


# Licences


def test_the_page_of_licences_is_up_to_date() -> None:
    here = {package["name"] for package in packages()}
    if not licences.pinned().keys() - licences.FOR_WINDOWS <= here:
        pytest.skip("not all that the lock pins is installed on this platform")
    assert licences.page() == licences.PAGE.read_text()
    assert all(licences.licences().values())


def test_a_package_that_is_not_listed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "licences.md"
    lines = licences.PAGE.read_text().splitlines(keepends=True)
    page.write_text("".join(line for line in lines if not line.startswith("| numpy |")))
    monkeypatch.setattr(licences, "PAGE", page)
    row = supply.listed_licences()
    assert row.held == row.tried - 1


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"License-Expression": "MIT OR Apache-2.0", "License": "other"}, "MIT OR Apache-2.0"),
        ({"License": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"License": "EPL-2.0 OR GPL-2.0-or-later"}, "EPL-2.0 OR GPL-2.0-or-later"),
        ({"License": "Copyright (c) 2015, somebody"}, ""),
        (
            {"License": "The whole text", "Classifier": "License :: OSI Approved :: MIT License"},
            "MIT",
        ),
        ({"License": "BSD", "Classifier": "License :: OSI Approved"}, "BSD"),
        ({"Name": "cuda_toolkit"}, "LicenseRef-NVIDIA-Proprietary"),
        ({}, ""),
    ],
)
def test_licences_as_packages_tell_them(told: dict[str, str], expected: str) -> None:
    metadata = Message()
    for name, value in ({"Name": "a"} | told).items():
        metadata[name] = value
    assert licence(metadata) == expected  # type: ignore[arg-type]


# The bill of materials

SYSTEM = """debian 12
git\t1:2.39.5-0+deb12u3\tamd64
libc6\t2.36\tamd64

git\tGPL-2
git\tExpat
"""
ENGINE = """#!/bin/sh
case "$*" in
    "image inspect nowhere") echo "no such image" >&2; exit 1 ;;
    "image inspect"*) echo '[{"Id": "sha256:0", "Config": {"Labels": null}}]' ;;
    *" python "*) cat > /dev/null; cat "$ANSWERS/python" ;;
    *" sh "*) cat "$ANSWERS/system" ;;
esac
"""


def bill(folder: Path, image: str) -> "subprocess.CompletedProcess[str]":
    """tools/sbom.sh with an engine that gives the answers above."""
    docker = folder / "bin/docker"
    docker.parent.mkdir()
    docker.write_text(ENGINE)
    docker.chmod(0o755)
    (folder / "system").write_text(SYSTEM)
    (folder / "python").write_text(json.dumps(packages()[:20]))
    return subprocess.run(
        [REPOSITORY / "tools/sbom.sh", image, folder / "sbom.json"],
        env={"PATH": f"{docker.parent}:/usr/bin:/bin", "ANSWERS": str(folder)},
        capture_output=True,
        text=True,
    )


@pytest.mark.usefixtures("_tools")
def test_a_bill_of_materials_lists_everything(tmp_path: Path) -> None:
    done = bill(tmp_path, "steadyspike")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "sbom.json").read_text())
    assert (written["bomFormat"], written["specVersion"]) == ("CycloneDX", "1.6")
    found = {one["purl"].partition("?")[0]: one for one in written["components"]}
    assert len(found) == 22
    git = found["pkg:deb/debian/git@1:2.39.5-0%2Bdeb12u3"]
    assert [each["license"]["name"] for each in git["licenses"]] == ["Expat", "GPL-2"]
    first = packages()[0]
    assert f"pkg:pypi/{first['name']}@{first['version']}" in found
    (image,) = [one for one in written["dependencies"] if one["ref"] == "image"]
    assert set(image["dependsOn"]) == {one["bom-ref"] for one in written["components"]}


@pytest.mark.usefixtures("_tools")
def test_no_image_no_bill(tmp_path: Path) -> None:
    done = bill(tmp_path, "nowhere")
    assert (done.returncode, done.stderr) == (2, "sbom: nowhere: no such image\n")
    assert not (tmp_path / "sbom.json").exists()


# What an image gives away


def test_the_words_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", MIRROR)
    monkeypatch.setenv("A_TOKEN", "0123456789")
    monkeypatch.setenv("SHORT_TOKEN", "0123")
    words = layers.of_this_machine(tmp_path)
    assert words.found_in(b"... " + MIRROR.encode() + b"torch", forms=False) == {
        "the value of PIP_INDEX_URL",
        "the login of PIP_INDEX_URL",
    }
    assert words.found_in(b"ENV A=0123456789") == {"the value of A_TOKEN"}
    assert words.found_in(f"COPY {tmp_path}/x".encode()) == {"a folder of the host"}
    assert words.found_in(b"0123") == set()


@pytest.mark.parametrize(
    "text",
    [
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b"A" * 70,
        b"AKIA" + b"A" * 16,
        b"token ghp_" + b"a" * 36,
        b"git clone https://me:secret" + b"@host.example/x",  # apart: images hold this file
    ],
)
def test_the_forms_of_secrets(text: bytes) -> None:
    words = layers.Words({})
    assert words.found_in(b"x " + text + b" y") == {"what looks like a secret"}
    assert words.found_in(b"PIP_CERT=/etc/ssl/certs https://host.example:8000/a@b") == set()


def _tar(files: dict[str, bytes]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()


def test_every_file_of_every_layer_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "_CHUNK", 1000)
    words = layers.Words({b"the-word-of-this-machine": "a word"})
    across = b"x" * 990 + b"the-word-of-this-machine" + b"x" * 5000
    key = b"-----BEGIN RSA PRIVATE KEY-----\n" + b"A" * 70
    saved = _tar(
        {
            "a/layer.tar": _tar({"etc/one": b"nothing", "etc/two": across}),
            "a/json": b"{}",
            "b/layer.tar": _tar({"./root/.ssh/id": key, "./opt/venv/tests/key": key}),
            "manifest.json": b"[]",
        }
    )
    found = dict(layers._scan_stream(io.BytesIO(saved), words))
    assert found == {
        "etc/one": set(),
        "etc/two": {"a word"},
        "root/.ssh/id": {"what looks like a secret"},
        "opt/venv/tests/key": set(),
    }
