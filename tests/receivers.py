"""Real receivers on this machine: what is sent to them over the wire is what a test reads."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class WebHook(ThreadingHTTPServer):
    """Takes JSON messages; answers with ``status`` as long as there is one left to give, then with 200."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.received: list[dict[str, Any]] = []
        self.refusals: list[int] = []

    @property
    def url(self) -> str:
        return f"json://user:t0p-secret@127.0.0.1:{self.server_address[1]}/hooks/s3cr3t-token"


class _Post(BaseHTTPRequestHandler):
    server: WebHook

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = self.server.refusals.pop(0) if self.server.refusals else 200
        if status == 200:
            self.server.received.append({**body, "path": self.path})
        self.send_response(status)
        if status == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_address[1]}/elsewhere")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing on the console."""


class PostOffice(socketserver.ThreadingTCPServer):
    """The part of SMTP that a message needs."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.received: list[str] = []

    @property
    def url(self) -> str:
        port = self.server_address[1]
        return f"mailto://127.0.0.1:{port}/?smtp=127.0.0.1&from=mlops@example.com&to=ana@example.com&mode=insecure"


class _Smtp(socketserver.StreamRequestHandler):
    server: PostOffice

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            word = line.strip().upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                letter = iter(self.rfile.readline, b".\r\n")
                self.server.received.append(b"".join(letter).decode())
            if word == b"QUIT":
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 ok\r\n")


@contextmanager
def running(server: Any) -> Iterator[Any]:
    """A receiver in a thread of its own, ended with the test."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
