"""The queue: one at a time, in order, bounded, and nothing is lost."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pmv.apps.studio import jobs
from pmv.apps.studio.jobs import Job, Queue, read_job
from pmv.errors import BusyError
from tests.conftest import ROOT

_WRITES = "import json, pathlib, sys; pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps({!r}))"
_DONE = _WRITES.format({"state": "done", "message": "made"})
_SLOW = (
    "import json, pathlib, signal, sys, time\n"
    "told = []\nsignal.signal(signal.SIGTERM, lambda *_: told.append(1))\n"
    "pathlib.Path(sys.argv[1], 'begun').touch()\n"
    "while not told: time.sleep(.01)\n"
    "pathlib.Path(sys.argv[1], 'result.json').write_text(json.dumps({'state': 'stopped', 'message': 'in time'}))\n"
)
_ORPHAN = "import pathlib, sys; pathlib.Path(sys.argv[1], 'begun').touch(); sys.stdin.read()"


def script(code: str) -> Callable[[Path], list[str]]:
    return lambda folder: [sys.executable, "-S", "-c", code, str(folder)]


@pytest.fixture
def heads(tmp_path: Path) -> list[Path]:
    """Twenty heads of twenty people."""
    found = [tmp_path / f"person{i}" / "head" for i in range(20)]
    for path in found:
        path.mkdir(parents=True)
    return found


@pytest.fixture
def queue() -> Iterator[Callable[..., Queue]]:
    made: list[Queue] = []

    def make(code: str, **settings: int) -> Queue:
        made.append(Queue(**settings, command=script(code)))
        return made[-1]

    yield make
    for one in made:
        if one._thread.is_alive():
            one.end()


def wait_for(true: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def state(folder: Path) -> str:
    job = read_job(folder)
    assert job is not None
    return job.state


def test_twenty_at_once_are_all_served_one_at_a_time(heads: list[Path], queue: Callable[..., Queue]):
    busy = heads[0].parent.parent / "busy"
    alone = (
        "import pathlib, sys, time\n"
        f"busy = pathlib.Path({str(busy)!r}); busy.touch(exist_ok=False); time.sleep(.02); busy.unlink()\n"
    )
    served = queue(alone + _DONE)
    served.start()
    clients = [threading.Thread(target=served.ask, args=(head, "run", {"device": "cpu"})) for head in heads]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    wait_for(lambda: served.length() == 0)
    found = [read_job(head) for head in heads]
    assert [job and (job.state, job.message, job.asked) for job in found] == [("done", "made", {"device": "cpu"})] * 20


def test_places_are_told_and_what_waits_can_be_taken_back(heads: list[Path], queue: Callable[..., Queue]):
    served = queue(_SLOW)
    served.start()
    for head in heads[:4]:
        served.ask(head, "run", {})
    wait_for(lambda: (heads[0] / "begun").exists())
    assert [served.place(head) for head in heads[:5]] == [0, 1, 2, 3, None] and served.length() == 4
    served.stop(heads[2])
    assert state(heads[2]) == "stopped" and served.place(heads[3]) == 2
    served.stop(heads[0])
    wait_for(lambda: state(heads[0]) == "stopped")
    assert (job := read_job(heads[0])) is not None and job.message == "in time"
    wait_for(lambda: state(heads[1]) == "running")


def test_there_is_an_end_to_waiting(heads: list[Path], queue: Callable[..., Queue], tmp_path: Path):
    served = queue(_SLOW, most=3, most_each=2)
    served.start()
    served.ask(heads[0], "run", {})
    wait_for(lambda: served.place(heads[0]) == 0)
    with pytest.raises(BusyError, match="being worked on"):
        served.ask(heads[0], "export", {})
    others = [tmp_path / "person1" / name for name in ("a", "b", "c")]
    for other in others:
        other.mkdir()
    served.ask(others[0], "run", {})
    served.ask(others[1], "run", {})
    with pytest.raises(BusyError, match="2 of your heads wait"):
        served.ask(others[2], "run", {})
    served.ask(heads[2], "run", {})
    with pytest.raises(BusyError, match="come back later"):
        served.ask(heads[3], "run", {})


def test_a_process_that_dies_is_told_and_stops_nobody(heads: list[Path], queue: Callable[..., Queue]):
    served = queue(
        "import os, signal, sys\nif 'person0' in sys.argv[1]: os.kill(os.getpid(), signal.SIGKILL)\n" + _DONE
    )
    served.start()
    for head in heads[:2]:
        served.ask(head, "run", {})
    wait_for(lambda: served.length() == 0)
    assert (job := read_job(heads[0])) is not None
    assert job.state == "failed" and "signal 9" in job.message and state(heads[1]) == "done"


def test_one_that_does_not_listen_is_ended(
    heads: list[Path], queue: Callable[..., Queue], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(jobs, "_GRACE", 0.2)
    deaf = _SLOW.replace("lambda *_: told.append(1)", "signal.SIG_IGN")
    served = queue(deaf)
    served.start()
    served.ask(heads[0], "run", {})
    wait_for(lambda: (heads[0] / "begun").exists())
    served.stop(heads[0])
    wait_for(lambda: state(heads[0]) == "failed")


def test_a_studio_that_ended_goes_on(heads: list[Path], queue: Callable[..., Queue]):
    first = queue(_SLOW)
    first.start()
    for head in heads[:3]:
        first.ask(head, "run", {"n": head.parent.name})
    wait_for(lambda: (heads[0] / "begun").exists())
    first.end()
    assert [state(head) for head in heads[:3]] == ["stopped", "waiting", "waiting"]
    jobs._write(heads[3], Job("run", state="running"))  # what one that was killed leaves

    second = queue(_DONE)
    second.start(heads)
    wait_for(lambda: second.length() == 0)
    assert [state(head) for head in heads[:4]] == ["stopped", "done", "done", "stopped"]


def test_the_process_ends_with_its_studio(heads: list[Path], tmp_path: Path):
    """Its standard input is a pipe that ends when the studio does, however that happens."""
    code = (
        "import os, pathlib, sys, time; from pmv.apps.studio.jobs import Queue; head = pathlib.Path(sys.argv[1])\n"
        f"queue = Queue(command=lambda folder: [sys.executable, '-S', '-c', {_ORPHAN!r} + "
        "'; pathlib.Path(sys.argv[1], \"ended\").touch()', str(folder)])\n"
        "queue.start(); queue.ask(head, 'run', {})\n"
        "while not (head / 'begun').exists(): time.sleep(.01)\n"
        "os._exit(9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(heads[0])], cwd=ROOT, timeout=60)
    assert done.returncode == 9
    wait_for(lambda: (heads[0] / "ended").exists())
