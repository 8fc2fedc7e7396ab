"""The process of a job."""

import functools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pmv.apps.export import export_run
from pmv.apps.prepare_folder import PrepareRequest, prepare
from pmv.apps.studio import jobs, worker
from pmv.apps.studio.jobs import Job, read_progress, write_result
from pmv.apps.studio.workspace import HeadFolder, People
from pmv.files.artifacts import read_json
from tests.apps.conftest import Finished
from tests.apps.test_cli import SMALL
from tests.conftest import ROOT


@pytest.fixture
def head(finished: Finished, tmp_path: Path) -> HeadFolder:
    """A finished head in a workspace."""
    found = People(tmp_path / "studio").workspace("account:ada").new("portrait.png", str(finished.checkpoint))
    shutil.copytree(finished.run, found.run)
    return found


def do(head: HeadFolder, job: Job) -> tuple[str, str]:
    jobs._write(head.path, job)
    result = head.path / jobs.RESULT
    result.unlink(missing_ok=True)
    worker.do(head.path, lambda: False)
    told = read_json(result)
    return told["state"], told["message"]


def test_files_are_written_for_everybody_s_programs(head: HeadFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "export_run", functools.partial(export_run, views=2))
    asked = {"version": "run", "device": "cpu"}
    assert do(head, Job("export", {"format": "npz", **asked})) == ("done", "head.npz is ready")
    assert (head.exports / "head.npz").is_file()
    state, message = do(head, Job("export", {"format": "views", **asked}))
    assert (state, message) == ("done", "head-views.zip is ready")
    assert [path.name for path in head.exports.iterdir() if path.is_dir()] == []
    assert (progress := read_progress(head.path)) is not None and progress.stage == "writing views"


def test_a_mistake_is_one_line(head: HeadFolder):
    assert do(head, Job("export", {"format": "exe", "version": "run", "device": "cpu"}))[0] == "failed"
    state, message = do(head, Job("edit", {"amounts": {"hat": 1.0}, "device": "cpu"}))
    assert state == "failed" and "\n" not in message and "has no attribute directions" in message


def test_stopped_is_no_failure(head: HeadFolder, finished: Finished):
    prepared = PrepareRequest(settings=[*SMALL, f"run.generator={finished.checkpoint}"])
    prepare(prepared, ROOT / "assets" / "portraits" / "plain.png", head.draft)
    shutil.rmtree(head.run)
    asked = {"presets": [], "settings": SMALL, "first": None, "device": "cpu"}
    jobs._write(head.path, Job("run", asked))
    worker.do(head.path, lambda: True)
    told = read_json(head.path / jobs.RESULT)
    assert told == {"state": "stopped", "message": "what is done stays, and Run goes on from there."}


def test_it_ends_when_the_studio_does(head: HeadFolder):
    jobs._write(head.path, Job("export", {"format": "npz", "version": "run", "device": "cpu"}))
    process = [sys.executable, "-m", "pmv.apps.studio.worker", str(head.path)]
    done = subprocess.run(process, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stderr == ""
    assert read_json(head.path / jobs.RESULT)["state"] == "done", "what cannot stop half-way is done"


def test_long_messages_are_cut(tmp_path: Path):
    write_result(tmp_path, "failed", "x" * 9000)
    assert len(read_json(tmp_path / jobs.RESULT)["message"]) == 2000
