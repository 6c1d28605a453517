"""Servers and addresses that nothing may be downloaded from."""

import http.server
import os
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ANSWER = b"what the server sends"
REDIRECTS = {"http": "http://localhost/x", "file": "file:///etc/passwd", "ftp": "ftp://localhost/x"}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers /file, sends /endless without an end, and points elsewhere for /to/<scheme>."""

    def do_GET(self) -> None:
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", REDIRECTS[self.path.removeprefix("/to/")])
            self.end_headers()
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(ANSWER)
        try:
            while self.path == "/endless":
                self.wfile.write(bytes(1 << 16))
        except OSError:  # the reader has left
            pass

    def log_message(self, *_: object) -> None:
        pass


def attacks(inside: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    from steadyspike.data.cifar10_dvs import fetch
    from steadyspike.data.download import download
    from steadyspike.data.manifest import bytes_sum

    known = bytes_sum(ANSWER)
    path = inside / "out" / "file"
    os.environ["no_proxy"] = "*"
    for scheme in ("http://localhost/x", "ftp://localhost/x", "file:///etc/passwd", "data:,x", "x"):
        yield f"the address {scheme}", partial(download, scheme, path, known)
    yield "an archive of which there is no SHA-256", lambda: fetch(inside)
    with _serving(None) as port:
        here = f"http://127.0.0.1:{port}"
        yield "http to another process here", partial(download, f"{here}/file", path, known)
        get = partial(download, path=path, allow_loopback=True)
        for scheme in REDIRECTS:
            yield f"a redirect to {scheme}", partial(get, f"{here}/to/{scheme}", expected=known)
        yield "another SHA-256", partial(get, f"{here}/file", expected=bytes_sum(ANSWER[::-1]))
        yield "another size", partial(get, f"{here}/file", expected=bytes_sum(ANSWER[1:]))
        yield "an answer without an end", partial(get, f"{here}/endless", expected=known)
    if shutil.which("openssl"):
        with _serving(_certificate(inside)) as port:
            address = f"https://localhost:{port}/file"
            yield "a certificate that nobody vouches for", partial(download, address, path, known)


def _certificate(folder: Path) -> ssl.SSLContext:
    """Of localhost, signed by itself."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


class _serving:
    """A server on a free port, for as long as the block lasts."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)

    def __enter__(self) -> int:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return int(self.server.server_address[1])

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
