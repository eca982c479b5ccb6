"""A proxy in front of an S3 server that does to every n-th request what networks and servers do on bad days."""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["drop", "delay", "lose-answer", "500", "503", "slow-down", "truncate", "flip"]
FAULTS: tuple[Fault, ...] = ("drop", "delay", "lose-answer", "500", "503", "slow-down", "truncate", "flip")
_ANSWERS = {"500": (500, "InternalError"), "503": (503, "ServiceUnavailable"), "slow-down": (503, "SlowDown")}


@dataclass
class Weather:
    """What happens to requests.

    Attributes:
        fault: What.
        every: To each n-th request; 0 for none, 1 for all.
        delay_s: How long a delayed request waits before its connection is closed.
        done: How many requests suffered.
    """

    fault: Fault = "drop"
    every: int = 0
    delay_s: float = 2.0
    done: int = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self) -> Fault | None:
        with self._lock:
            if not self.every or next(self._numbers) % self.every:
                return None
            self.done += 1
            return self.fault


class Handler(BaseHTTPRequestHandler):
    weather: Weather
    port: int

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.weather.next()
        if fault in _ANSWERS:
            self._refuse(*_ANSWERS[fault])
        elif fault == "drop":
            self._close()
        elif fault == "delay":
            time.sleep(self.weather.delay_s)
            self._close()
        else:
            self._pass_on(body, fault)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _handle

    def _pass_on(self, body: bytes, fault: Fault | None) -> None:
        upstream = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            content = answer.read()
        finally:
            upstream.close()
        if fault == "lose-answer":
            self._close()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {
                "connection",
                "transfer-encoding",
                "content-length",
                "date",
                "server",
            }:
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(content))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        if fault == "flip" and content:
            content = bytes([content[0] ^ 1]) + content[1:]
        self.wfile.write(content[: len(content) // 2] if fault == "truncate" else content)
        if fault == "truncate":
            self._close()

    def _refuse(self, status: int, code: str) -> None:
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>later</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _close(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        pass  # a client that hangs up is part of the game


@contextmanager
def faulty_proxy(port: int) -> Iterator[tuple[str, Weather]]:
    """Give the address of a proxy to a loopback port, and its weather."""
    weather = Weather()
    server = Server(("127.0.0.1", 0), type("HandlerHere", (Handler,), {"weather": weather, "port": port}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", weather
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
