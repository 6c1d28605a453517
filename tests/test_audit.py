"""`make audit`: a vulnerable package fails, an unreachable database does not."""

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tiny import REPOSITORY, audit_tools

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    audit_tools()


class Database(BaseHTTPRequestHandler):
    """OSV's interface, with one known vulnerability: of uv."""

    def do_POST(self) -> None:
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        events = [{"introduced": "0"}, {"fixed": "999"}]
        affected = {
            "package": {"ecosystem": "PyPI", "name": "uv"},
            "ranges": [{"type": "ECOSYSTEM", "events": events}],
        }
        known = {"vulns": [{"id": "OSV-1", "affected": [affected]}]}
        body = json.dumps(known if query["package"]["name"] == "uv" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def database() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Database)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query"
    server.shutdown()
    server.server_close()


def audit(url: str, *locks: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [REPOSITORY / "tools/audit.sh", *locks],
        env={"PATH": "/usr/bin:/bin", "OSV_URL": url},
        capture_output=True,
        text=True,
    )


def test_a_vulnerable_package_fails(database: str, tmp_path: Path) -> None:
    safe = tmp_path / "safe.lock"
    safe.write_text(f"packaging==26.3 --hash=sha256:{'0' * 64}\n")
    done = audit(database, REPOSITORY / "requirements-uv.lock", safe)
    assert done.returncode == 1
    assert "OSV-1" in done.stdout
    assert "requirements-uv.lock: FAILED" in done.stderr
    assert done.stdout.endswith("safe.lock: no known vulnerabilities\n")
    assert audit(database, safe).returncode == 0


def test_an_unreachable_database_passes_and_is_reported() -> None:
    done = audit("http://127.0.0.1:9/v1/query", REPOSITORY / "requirements-uv.lock")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("audit: skipped, the database cannot be reached: ")


def test_a_lock_that_cannot_be_read_fails(database: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.lock"
    broken.write_text("numpy==\n")
    assert audit(database, broken).returncode == 1
