"""A studio that is open, and those who use it over HTTP as their browsers do."""

import contextlib
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from pmv.apps.studio.opened import Settings, Studio
from pmv.generators import EG3DGenerator, save_generator
from tests.apps.test_cli import SMALL


class Visitor:
    """A browser without a window.

    Args:
        address: of the studio.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.http = requests.Session()
        self.session = secrets.token_hex(6)

    def arrive(self) -> None:
        """Ask for the page, as anybody begins."""
        self.http.get(f"{self.address}/", timeout=60).raise_for_status()

    def log_in(self, name: str, password: str) -> requests.Response:
        form = {"username": name, "password": password}
        return self.http.post(f"{self.address}/login", data=form, timeout=60)

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.http.get(f"{self.address}{path}", timeout=60, **more)

    def upload(self, name: str, content: bytes) -> requests.Response:
        return self.http.post(f"{self.address}/gradio_api/upload", files={"files": (name, content)}, timeout=60)

    def call(self, event: str, *values: Any, data: Any = None) -> list[Any]:
        """What an event of the page gives. Raises `Told` with the line that the page shows instead."""
        config = self.get("/config").json()
        number = next(one["id"] for one in config["dependencies"] if one["api_name"] == event)
        asked = {"data": list(values), "fn_index": number, "session_hash": self.session, "event_data": data}
        self.http.post(f"{self.address}/gradio_api/queue/join", json=asked, timeout=60).raise_for_status()
        stream = self.get(f"/gradio_api/queue/data?session_hash={self.session}", stream=True)
        for line in stream.iter_lines():
            message = json.loads(line[5:]) if line.startswith(b"data:") else {}
            if message.get("msg") == "process_completed":
                stream.close()
                if not message["success"]:
                    raise Told(message["output"].get("error"))
                return message["output"]["data"]
        raise AssertionError("the stream ended without an answer")

    def begin(self, name: str, content: bytes) -> str:
        """Begin a head with a picture; its name."""
        (path,) = self.upload(name, content).json()
        file = {"path": path, "orig_name": name, "meta": {"_type": "gradio.FileData"}}
        return self.call("begin", file, self.get("/config").json()["dependencies"] and self.generator)[0]

    generator = ""


class Told(Exception):
    """The page told a mistake."""


Opened = Callable[..., Studio]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_generator: EG3DGenerator) -> Path:
    path = tmp_path_factory.mktemp("studio") / "tiny.safetensors"
    save_generator(tiny_generator, path)
    return path


@pytest.fixture(scope="session")
def tiny_preset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preset of few steps."""
    values: dict[str, dict[str, Any]] = {}
    for setting in SMALL:
        name, value = setting.split("=")
        block, key = name.split(".")
        values.setdefault(block, {})[key] = yaml.safe_load(value)
    path = tmp_path_factory.mktemp("preset") / "tiny.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def open_studio(tiny_checkpoint: Path, tiny_preset: Path) -> Iterator[Opened]:
    """Opens studios in threads of this process; closed when the module's tests are over."""
    pytest.importorskip("gradio", reason="needs gradio (the extra studio)")
    from pmv.apps.studio.server import serve

    before = dict(os.environ)
    with contextlib.ExitStack() as stack:

        def start(root: Path, **settings: Any) -> Studio:
            end, there, found = threading.Event(), threading.Event(), []
            given = Settings(root, generators=(str(tiny_checkpoint),), presets=(str(tiny_preset),), **settings)

            def opened(studio: Studio) -> None:
                found.append(studio)
                there.set()

            def run() -> None:
                try:
                    serve(given, end.wait, opened)
                finally:
                    there.set()

            thread = threading.Thread(target=run)
            thread.start()
            stack.callback(thread.join)
            stack.callback(end.set)
            assert there.wait(120) and found, "the studio did not open"
            return found[0]

        yield start
    os.environ.clear()
    os.environ.update(before)
