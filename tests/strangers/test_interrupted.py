"""Runs that are killed, start in pairs, or meet a disk that fills or cannot be written: the same bytes in the end, or
one line, and nothing of the user's lost.

A few of each always; ``-m slow -s`` does 200 kills, 20 pairs and 50 disks, and prints what became of them.
"""

import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from pmv.apps.attributes import edit_run
from pmv.apps.invert import Request, invert
from pmv.apps.prepare_folder import PrepareRequest, prepare
from pmv.apps.render import write_sheet, write_turn
from pmv.apps.uncrop import uncrop_run
from pmv.errors import PmvError
from pmv.files.artifacts import file_hash, read_json
from pmv.generators.convert import convert_checkpoint
from pmv.inversion import load_inversion
from tests.apps.test_cli import SMALL
from tests.strangers.world import World

FEW, MANY = 1, pytest.param(200, marks=pytest.mark.slow)


def content(folder: Path) -> dict[str, str]:
    """Hashes of what a command leaves, without what tells the time."""
    timed = {"run.json", "report.html", "log.txt", "stage.json", ".lock"}
    found = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in timed)
    return {str(path.relative_to(folder)): file_hash(path) for path in found}


def forked(work: Callable[[], Any]) -> int:
    """Start `work` in a process of its own: 0 = done, 2 = refused in one line, 1 = anything else."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(os.environ.get("PMV_TEST_ERRORS", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        work()
        code = 0
    except PmvError as error:
        os.write(2, f"{error}\n".encode())
        code = 2
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """How a process ended: its code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


class Commands:
    """What is interrupted: each writes `out` from the world's files, and can simply be given again."""

    def __init__(self, world: World) -> None:
        folder, weights = world.folder, world.folder / "tiny.safetensors"
        settings = (*SMALL, f"run.generator={weights}")
        self.request = Request(settings=settings, mask=folder / "mask.png")
        self.photo = folder / "head.png"
        self.all: dict[str, Callable[[Path], Any]] = {
            "invert": lambda out: invert(self.request, self.photo, out),
            "edit": lambda out: edit_run(folder / "run", ["smile=1"], out),
            "prepare": lambda out: prepare(
                PrepareRequest(settings=settings, mask=folder / "mask.png"), self.photo, out
            ),
            "convert": lambda out: convert_checkpoint(weights, out / "tiny.safetensors"),
        }


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_killed_anywhere(kills: int, world: World, tmp_path: Path):
    """SIGKILL at random moments of four commands, of some two or three times; then the command again, or --resume."""
    commands, rng, seen = Commands(world), random.Random(kills), Counter()
    reference, seconds = {}, {}
    for name, run in commands.all.items():
        started = time.monotonic()
        assert ended(forked(partial(run, tmp_path / name))) == 0
        seconds[name], reference[name] = time.monotonic() - started, content(tmp_path / name)
    while seen["kills"] < kills:
        name = rng.choice(["invert"] * 5 + [n for n in commands.all if n != "invert"])
        run, out = commands.all[name], tmp_path / f"killed-{seen['runs']}"
        seen["runs"] += 1
        notes = out / "00_prepare" / "notes.txt"
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            child = forked(partial(run, out))
            time.sleep(rng.uniform(0, 1.1 * seconds[name]))
            os.kill(child, signal.SIGKILL)
            if ended(child) == -signal.SIGKILL:
                seen["kills"] += 1
                seen[f"kills in {name}"] += 1
            if name == "invert" and notes.parent.is_dir():
                notes.write_text("mine")
        had_notes = notes.exists()
        resumed = (
            name == "invert" and (out / "source").is_dir() and (out / "config.yaml").is_file() and rng.random() < 0.5
        )
        again = partial(invert, Request(), resume=out) if resumed else partial(run, out)
        seen["resumed" if resumed else "given again"] += 1
        assert ended(forked(again)) == 0, (name, seen)
        found = content(out)
        assert (found.pop("00_prepare/notes.txt", None) is not None) == had_notes
        leftovers = [path for path in found if Path(path).name.startswith(".")]
        assert {k: v for k, v in found.items() if k not in leftovers} == reference[name], (name, seen)
        # a folder that becomes another in one step cannot tidy what an earlier death left: that lies beside it
        assert not leftovers or name == "convert"
        shutil.rmtree(out)
    print(f"\n{dict(seen)}")


@pytest.mark.parametrize("pairs", [pytest.param(20, marks=pytest.mark.slow)])
def test_pairs_of_whole_runs(pairs: int, world: World, tmp_path: Path):
    """The same photo twice at once: one works, the other waits its turn or is told; the run is the reference's."""
    commands, seen = Commands(world), Counter()
    for number in range(pairs):
        out = tmp_path / str(number)
        children = [forked(partial(commands.all["invert"], out)) for _ in range(2)]
        codes = sorted(ended(child) for child in children)
        assert codes in ([0, 0], [0, 2]), codes
        seen[str(codes)] += 1
        reference = content(world.folder / "run")
        assert content(out) == reference
        shutil.rmtree(out)
    print(f"\n{dict(seen)}")


@contextmanager
def disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A disk of this size."""
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs to mount a file system in memory")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that forked commands write their lines to."""
    path = tmp_path / "told"
    monkeypatch.setenv("PMV_TEST_ERRORS", str(path))
    return path


@pytest.mark.parametrize("disks", [FEW, pytest.param(50, marks=pytest.mark.slow)])
def test_a_disk_that_fills_anywhere(disks: int, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that is full at a random place of a command: one line; with room again, the same bytes."""
    commands, rng, seen, lines = Commands(world), random.Random(disks), Counter(), told(tmp_path, monkeypatch)
    full = {}
    for name, run in commands.all.items():
        with disk(tmp_path / name, 1 << 16) as place:
            assert ended(forked(partial(run, place / "out"))) == 0
            full[name] = (shutil.disk_usage(place).used >> 10, content(place / "out"))
    for number in range(disks):
        name = rng.choice(["invert"] * 5 + [n for n in commands.all if n != "invert"])
        run, (size, reference) = commands.all[name], full[name]
        with disk(tmp_path / f"disk-{number}", rng.randint(4, size)) as place:
            lines.write_text("")
            code = ended(forked(partial(run, place / "out")))
            text = lines.read_text()
            seen[f"{name}: {code}"] += 1
            assert code in (0, 2) and "Traceback" not in text, (name, text[-3000:])
            if code == 2:
                last = text.splitlines()[-1]
                assert "full" in last or "No space" in last or "cannot be written" in last, last
            subprocess.run(["mount", "-o", f"remount,size={1 << 16}k", str(place)], check=True)
            lines.write_text("")
            assert ended(forked(partial(run, place / "out"))) == 0, (name, lines.read_text()[-3000:])
            assert content(place / "out") == reference, name
    print(f"\n{dict(seen)}")


def test_a_place_that_cannot_be_written(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Every command is refused in one line on a read-only disk; a run there can be looked at, and is as it was."""
    commands, lines = Commands(world), told(tmp_path, monkeypatch)
    with disk(tmp_path / "disk", 1 << 16) as place:
        shutil.copytree(world.folder / "run", place / "run")
        before = content(place / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        asked = {
            **{name: partial(run, place / "out") for name, run in commands.all.items()},
            "render": lambda: write_sheet(place / "run", place / "view.png", [0.0], 0.0),
            "film": lambda: write_turn(place / "run", place / "turn.mp4", 0.0, 0.0, 10.0, 2),
            "uncrop": lambda: uncrop_run(place / "run", place / "photo.png"),
            "resume": lambda: invert(Request(), resume=place / "run"),
            "again": lambda: invert(commands.request, commands.photo, place / "run"),
        }
        for name, work in asked.items():
            lines.write_text("")
            assert ended(forked(work)) == 2, (name, lines.read_text()[-3000:])
            assert "read-only" in lines.read_text().lower(), (name, lines.read_text())
        assert load_inversion(place / "run").w.isfinite().all() and content(place / "run") == before


def test_a_loser_of_a_race_finds_the_winners_run_whole(tmp_path: Path, world: World, tiny_generator):
    """See `tests.apps.test_two_at_once`; here with a winner that is killed, and the loser's turn afterwards."""
    commands, out = Commands(world), tmp_path / "out"
    child = forked(partial(commands.all["invert"], out))
    while not (out / ".tmp-02_latent").exists():
        time.sleep(0.001)
    with pytest.raises(PmvError, match="is working in this folder"):
        commands.all["invert"](out)
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert read_json(out / "00_prepare" / "stage.json")["stage"] == "prepare"
    commands.all["invert"](out)
    assert content(out) == content(world.folder / "run")
