"""What the S3 store does with servers that break the rules or fail, shown on a small server that can be told to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from safegen.adapters.s3_store import S3Credentials, S3Location, open_s3_store
from safegen.errors import PreconditionFailedError, StorageError

KEYS = S3Credentials("who", "do-not-print-me")


class RuleBreaker(ThreadingHTTPServer):
    """Objects in memory; conditions are honoured only as far as it is told to."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, bytes] = {}
        self.honours: set[str] = {"If-None-Match", "If-Match"}
        self.lose_answers = 0
        self.damage = False


class _Handler(BaseHTTPRequestHandler):
    server: RuleBreaker

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        stored = self.server.objects.get(self.path)
        if "If-None-Match" in self.headers and stored is not None and "If-None-Match" in self.server.honours:
            return self._answer(412)
        match = self.headers.get("If-Match")
        if match is not None and "If-Match" in self.server.honours and match != _etag(stored):
            return self._answer(412 if stored is not None else 404)
        self.server.objects[self.path] = body
        if self.server.lose_answers:
            self.server.lose_answers -= 1
            return self._answer(500)
        return self._answer(200)

    def do_GET(self) -> None:
        stored = self.server.objects.get(self.path.partition("?")[0])
        self._answer(404 if stored is None else 200, b"forged" if self.server.damage else stored or b"")

    do_HEAD = do_GET

    def do_DELETE(self) -> None:
        self.server.objects.pop(self.path, None)
        self._answer(204)

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.server.objects.get(self.path) is not None:
            self.send_header("ETag", _etag(self.server.objects[self.path]))
        if status == 200 and self.server.damage:
            self.send_header("x-amz-checksum-sha256", "A" * 43 + "=")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Keep quiet."""


def _etag(content: bytes | None) -> str:
    return f'"{(content or b"").hex()}"'


@pytest.fixture
def server() -> Iterator[RuleBreaker]:
    with RuleBreaker() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def at(server: RuleBreaker) -> S3Location:
    return S3Location("bucket", endpoint_url=f"http://127.0.0.1:{server.server_port}")


def test_a_server_that_honours_conditions_is_accepted_and_left_clean(server: RuleBreaker) -> None:
    open_s3_store(at(server), credentials=KEYS, probe_prefix="probes")
    assert server.objects == {}


@pytest.mark.parametrize("ignored", ["If-None-Match", "If-Match"])
def test_a_server_that_ignores_a_condition_is_refused_and_left_clean(
    server: RuleBreaker, ignored: str
) -> None:
    server.honours -= {ignored}
    with pytest.raises(StorageError, match=f"s3://bucket ignores {ignored}") as refusal:
        open_s3_store(at(server), credentials=KEYS, probe_prefix="probes")
    assert not isinstance(refusal.value, PreconditionFailedError)
    assert server.objects == {}


def test_a_reader_opens_it_without_writing(server: RuleBreaker) -> None:
    server.honours.clear()
    open_s3_store(at(server), credentials=KEYS, probe_prefix=None)
    assert server.objects == {}


@pytest.mark.parametrize("before", [None, b"old"])
def test_a_write_whose_answer_was_lost_is_known_as_our_own(server: RuleBreaker, before: bytes | None) -> None:
    store = open_s3_store(at(server), credentials=KEYS, probe_prefix=None, attempts=2)
    seen = store.put("a", before) if before else None
    server.lose_answers = 1
    info = store.put("a", b"mine", if_absent=seen is None, if_match=seen.etag if seen else None)
    assert (server.objects["/bucket/a"], info.etag) == (b"mine", _etag(b"mine"))


def test_a_write_lost_to_another_while_it_was_resent_is_lost(server: RuleBreaker) -> None:
    store = open_s3_store(at(server), credentials=KEYS, probe_prefix=None)
    store.put("a", b"theirs")
    with pytest.raises(PreconditionFailedError):
        store.put("a", b"mine", if_absent=True)
    assert server.objects["/bucket/a"] == b"theirs"


def test_a_content_that_does_not_match_its_checksum_is_refused(server: RuleBreaker, tmp_path) -> None:
    store = open_s3_store(at(server), credentials=KEYS, probe_prefix=None)
    store.put("a", b"true")
    server.damage = True
    with pytest.raises(StorageError, match="checksum"):
        store.get("a")
    with pytest.raises(StorageError, match="checksum"):
        store.download("a", tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "not an address"])
def test_an_endpoint_that_is_not_there_is_one_clear_line(endpoint: str) -> None:
    with pytest.raises(StorageError) as refusal:
        open_s3_store(
            S3Location("bucket", endpoint_url=endpoint), credentials=KEYS, probe_prefix="probes", attempts=2
        )
    assert endpoint in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert KEYS.secret_key not in str(refusal.value) + repr(KEYS)
