"""Many at once: everybody is served, nobody's head is lost, and memory is bounded."""

import functools
import resource
import sys
import threading
import time
from pathlib import Path

import pytest

from pmv.apps.studio.jobs import Queue, read_job
from pmv.apps.studio.opened import Studio
from tests.apps.studio.conftest import Opened, Visitor
from tests.conftest import ROOT

CLIENTS = 20
_FAKE = (
    "import json, pathlib, sys, time; folder = pathlib.Path(sys.argv[1])\n"
    "assert (folder / 'draft' / 'image.png').is_file()\n"
    "time.sleep(.05); (folder / 'result.json').write_text(json.dumps({'state': 'done', 'message': 'pretended'}))"
)


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def serve_all(studio: Studio, seconds: float) -> None:
    portrait = (ROOT / "assets" / "portraits" / "plain.png").read_bytes()
    everybody = [Visitor(studio.address) for _ in range(CLIENTS)]
    names: dict[int, str] = {}
    failed: list[str] = []

    def use(number: int) -> None:
        try:
            someone = everybody[number]
            someone.generator = studio.settings.generators[0]
            someone.arrive()
            names[number] = name = someone.begin(f"portrait{number}.png", portrait)
            someone.call("run", name, studio.settings.presets[0], "only what has changed", "")
            end = time.monotonic() + seconds
            while "The run is done" not in str(someone.call("look", name, "")):
                assert time.monotonic() < end, "it is not done in time"
                time.sleep(1.0)
        except Exception as error:
            failed.append(f"{number}: {type(error).__name__}: {error}")

    threads = [threading.Thread(target=use, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(set(names.values())) == CLIENTS
    for number, name in names.items():
        (head,) = studio.people.folder.glob(f"*/{name}")
        assert (job := read_job(head)) is not None and job.state == "done"
        assert f"portrait{number}.png" in str(everybody[number].call("arrive")), "each has its own, and nobody else's"
        listed = str(everybody[number].call("arrive")[1])
        assert not any(other in listed for other in names.values() if other != name)


def test_twenty_clients_and_a_pretended_run(open_studio: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pmv.apps.studio import server

    fake = functools.partial(Queue, command=lambda folder: [sys.executable, "-S", "-c", _FAKE, str(folder)])
    monkeypatch.setattr(server, "Queue", fake)
    studio = open_studio(tmp_path / "studio")
    first = Visitor(studio.address)  # loads what is loaded once
    first.generator = studio.settings.generators[0]
    first.arrive()
    first.begin("first.png", (ROOT / "assets" / "portraits" / "plain.png").read_bytes())
    before = megabytes()
    serve_all(studio, 120)
    assert megabytes() - before < 300, "one picture at a time is worked on"


@pytest.mark.slow
def test_twenty_clients_and_a_tiny_run(open_studio: Opened, tmp_path: Path):
    serve_all(open_studio(tmp_path / "studio"), 3000)
