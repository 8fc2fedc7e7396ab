"""`pmv fetch` against servers and caches that mean harm: one line, nothing outside the cache, the disk not filled."""

import multiprocessing
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import pmv.files.fetch
import pmv.files.manifest
from pmv.errors import PmvError
from pmv.files.fetch import _is_downgrade, fetch
from pmv.files.manifest import manifest

NAME = "weights"
BODY = os.urandom(200_000)
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


class Raw:
    """Answers every request with the same bytes, or, where these are an iterator's, until nobody listens any more."""

    def __init__(self, answer: Callable[[str], Iterator[bytes]]) -> None:
        self.answer, self.requests = answer, 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/weights.pkl"

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.requests += 1
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(65536)
                for part in self.answer(self.url):
                    connection.sendall(part)
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass


def endless(head: bytes) -> Iterator[bytes]:
    yield head + b"\r\n"
    while True:
        yield bytes(1 << 16)


def redirect(where: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nLocation: {where}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()


ANSWERS: list[tuple[str, Callable[[str], Iterator[bytes]], str]] = [
    ("redirected in a circle", lambda url: iter([redirect(url)]), "TooManyRedirects"),
    ("redirected to a file", lambda url: iter([redirect("file:///etc/passwd")]), "InvalidSchema"),
    ("redirected to nowhere", lambda url: iter([redirect("http://")]), "cannot be reached"),
    ("truncated", lambda url: iter([OK + b"Content-Length: 300000\r\n\r\n" + BODY]), "cut"),
    ("longer than it says", lambda url: iter([OK + b"Content-Length: 100\r\n\r\n" + BODY]), "sha256"),
    ("endless", lambda url: endless(OK + b"Connection: close\r\n"), "sends more than"),
    ("a terabyte promised", lambda url: iter([OK + b"Content-Length: 1099511627776\r\n\r\n"]), "offers 1099511627776"),
    (
        "a length of 400 digits",
        lambda url: iter([OK + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n"]),
        "offers a number",
    ),
    ("a length of 5000 digits", lambda url: iter([OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n"]), ""),
    ("a length below zero", lambda url: iter([OK + b"Content-Length: -5\r\n\r\n" + BODY]), "sha256"),
    ("an endless page", lambda url: endless(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"), "shows a page"),
    ("an endless header", lambda url: (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 10_000_000 for _ in range(1)), "cannot be"),
    ("10 000 headers", lambda url: iter([b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000]), "cannot be reached"),
    (
        "terminal codes as its reason",
        lambda url: iter([b"HTTP/1.1 404 \x1b[2J\r\nContent-Length: 0\r\n\r\n"]),
        "404 ?[2J",
    ),
    ("no HTTP", lambda url: iter([b"\0" * 1000]), "cannot be reached"),
    ("nothing", lambda url: iter([b""]), "cannot be reached"),
    ("compressed a thousandfold", lambda url: iter([OK + b"Content-Encoding: gzip\r\n\r\n" + BODY]), ""),
]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts one checkpoint at an address in the place of the manifest; returns the cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(pmv.files.manifest.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(pmv.files.fetch, "_MOST", 1 << 24)

    def use(url: str, sha256: str | None = "0" * 64, size: int | None = None) -> Path:
        template = manifest()["ffhqrebalanced512-128"]
        values = {"name": NAME, "file": "weights.pkl", "url": url, "licence": "CC0", "sha256": sha256, "size": size}
        entry = replace(template, **values)
        monkeypatch.setattr(pmv.files.manifest, "manifest", lambda: {NAME: entry})
        return tmp_path / "cache"

    return use


@pytest.mark.parametrize("what, answer, says", ANSWERS, ids=[row[0] for row in ANSWERS])
def test_a_server_that_means_harm(what: str, answer, says: str, use: Callable[..., Path]):
    server = Raw(answer)
    cache = use(server.url)
    started = time.monotonic()
    with pytest.raises(PmvError) as caught:
        fetch(NAME)
    server.socket.close()
    assert says in str(caught.value) and str(caught.value).isprintable() and len(str(caught.value)) < 800
    assert time.monotonic() - started < 15 and server.requests < 10
    assert sum(path.stat().st_size for path in cache.iterdir()) < 1 << 24 and not (cache / "weights.pkl").exists()


def honest(url: str) -> Iterator[bytes]:
    yield OK + f"Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY


def test_another_length_than_the_published_one_is_not_fetched(use: Callable[..., Path]):
    cache = use(Raw(honest).url, sha256=None, size=5)
    with pytest.raises(PmvError, match="offers 200000 bytes instead of 5"):
        fetch(NAME)
    assert not any(path.stat().st_size for path in cache.iterdir())


def test_leaving_encryption_is_a_downgrade():
    assert _is_downgrade("https://a/x", "http://a/x") and _is_downgrade("https://a/x", "ftp://a/x")
    assert not _is_downgrade("http://a/x", "https://a/x") and not _is_downgrade("https://a/x", "https://b/x")


SPECIAL = ["weights.pkl.part", "weights.pkl.part.json", "weights.pin.json", ".weights.pkl.lock"]


@pytest.mark.parametrize("kind", ["link", "second name", "pipe", "folder"])
@pytest.mark.parametrize("name", SPECIAL)
def test_a_cache_with_something_else_in_a_files_place(name: str, kind: str, use: Callable[..., Path], tmp_path: Path):
    """Whatever the cache holds, nothing outside it is written to, and fetch ends: in the file or in one line."""
    cache = use(Raw(honest).url, sha256=None)
    cache.mkdir()
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    if kind == "link":
        (cache / name).symlink_to(mine)
    elif kind == "second name":
        os.link(mine, cache / name)
    elif kind == "pipe":
        os.mkfifo(cache / name)
    else:
        (cache / name).mkdir()
    try:
        assert fetch(NAME).read_bytes() == BODY
    except PmvError as error:
        assert name in str(error) or "cache cannot be written" in str(error)
    assert mine.read_text() == "mine"


def test_a_link_in_the_checkpoints_place_is_read_and_never_written_through(use: Callable[..., Path], tmp_path: Path):
    cache = use(Raw(honest).url, sha256=None)
    cache.mkdir()
    (cache / "weights.pkl").symlink_to(tmp_path / "gone")
    assert fetch(NAME).read_bytes() == BODY
    assert not (cache / "weights.pkl").is_symlink() and not (tmp_path / "gone").exists()


def slowly(url: str) -> Iterator[bytes]:
    yield OK + f"Content-Length: {len(BODY)}\r\n\r\n".encode()
    for start in range(0, len(BODY), 20_000):
        yield BODY[start : start + 20_000]
        time.sleep(0.01)


def fetch_together(together: Any, results: Any) -> None:
    together.wait()
    try:
        results.put(fetch(NAME).read_bytes() == BODY)
    except PmvError as error:
        results.put("another process is fetching" in str(error))


def test_several_at_once_never_spoil_the_file(use: Callable[..., Path]):
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        cache = use(Raw(slowly).url, sha256=None)
        together, results = context.Barrier(3), context.SimpleQueue()
        processes = [context.Process(target=fetch_together, args=(together, results)) for _ in range(3)]
        for process in processes:
            process.start()
        assert [results.get() for _ in processes] == [True] * 3
        for process in processes:
            process.join()
        assert sorted(path.name for path in cache.iterdir()) == ["weights.pin.json", "weights.pkl"]
        for path in cache.iterdir():
            path.unlink()
