"""The manifest, the cache's pins, and what a name or a file is recognised as."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import pmv.files.manifest
from pmv import data_path
from pmv.errors import AssetsError, CheckpointError, InputError
from pmv.files.artifacts import file_hash
from pmv.files.fetch import place
from pmv.files.manifest import (
    CACHE_VARIABLE,
    cache_folder,
    cached,
    find_entry,
    manifest,
    pin_path,
    recognise,
    table,
    update_shipped,
)
from pmv.generators import EMBEDDED, resolve_generator
from pmv.generators.base import PLANE_AXES

NAME = "ffhqrebalanced512-128"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_every_row_says_where_to_get_it_and_under_which_licence():
    domains = {path.stem for path in data_path("configs", "generators").glob("*.yaml")}
    for entry in manifest().values():
        assert entry.shipped or entry.page.startswith("https://")
        assert entry.url is None or entry.url.startswith("https://")
        assert " " not in entry.licence and entry.terms
        assert entry.kind in ("generator", "encoder")
        assert (entry.domain in domains) == (entry.kind == "generator")
        assert entry.plane_convention is None or entry.plane_convention in PLANE_AXES
        assert entry.sha256 is None or len(entry.sha256) == 64
    assert len({entry.file for entry in manifest().values()}) == len(manifest())


def test_the_embedded_generators_checksum_is_the_shipped_files():
    for name, path in EMBEDDED.items():
        entry = find_entry(name)
        assert (entry.shipped, entry.size, entry.sha256) == (path, path.stat().st_size, file_hash(path)), (
            f"a new {path.name}? Then: python -c \"from pmv.files.manifest import *; update_shipped('{name}', "
            f"find_entry('{name}').shipped)\""
        )


def test_update_shipped_changes_two_lines(tmp_path):
    copy, weights = tmp_path / "manifest.yaml", tmp_path / "heads.safetensors"
    shutil.copy(data_path("assets", "manifest.yaml"), copy)
    weights.write_bytes(b"new weights")
    update_shipped("heads", weights, copy)
    before = data_path("assets", "manifest.yaml").read_text().splitlines()
    after = copy.read_text().splitlines()
    assert [line for line in after if line not in before] == ["  size: 11", f"  sha256: {file_hash(weights)}"]
    assert len(after) == len(before)
    with pytest.raises(InputError, match="no row nothing"):
        update_shipped("nothing", weights, copy)


def test_cache_folder_is_the_argument_then_the_variable_then_the_platforms(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "a"))
    assert cache_folder(tmp_path / "b") == tmp_path / "b"
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "c"))
    assert cache_folder().name == "pmv"


def test_a_placed_file_is_pinned_and_then_resolves(cache, tmp_path):
    mine = tmp_path / "download.pkl"
    mine.write_bytes(b"weights")
    assert cached(NAME) is None
    with pytest.raises(CheckpointError, match=f"pmv fetch {NAME}"):
        resolve_generator(NAME)
    path = place(NAME, mine)
    assert path.read_bytes() == b"weights" and path.parent == cache
    assert cached(NAME) == path == resolve_generator(NAME)
    pin = json.loads(pin_path(find_entry(NAME), cache).read_text())
    assert pin["sha256"] == file_hash(mine) and pin["source"] == str(mine)
    assert [row[:2] for row in table() if row[0] == NAME] == [(NAME, "here")]
    assert recognise(mine) == find_entry(NAME)  # by its content, wherever it lies
    mine.write_bytes(b"WEIGHTS")
    assert recognise(mine) is None and recognise(tmp_path / "absent.pkl") is None


def test_another_content_than_the_pinned_is_refused(cache, tmp_path):
    mine = tmp_path / "download.pkl"
    mine.write_bytes(b"weights")
    path = place(NAME, mine)
    mine.write_bytes(b"changed")
    with pytest.raises(AssetsError, match="was pinned when it was first fetched"):
        place(NAME, mine)
    assert path.read_bytes() == b"weights"
    path.write_bytes(b"changed")
    with pytest.raises(AssetsError, match=r"remove .*pin\.json"):
        cached(NAME)
    assert [row[1] for row in table() if row[0] == NAME] == ["changed!"]
    pin_path(find_entry(NAME), cache).unlink()  # what the message advises
    assert cached(NAME) == path


def test_a_file_put_into_the_cache_by_hand_is_taken_and_pinned(cache):
    cache.mkdir()
    path = cache / find_entry(NAME).file
    path.write_bytes(b"weights")
    assert cached(NAME) == path
    path.write_bytes(b"changed")
    with pytest.raises(AssetsError, match="put there by hand"):
        cached(NAME)


def test_a_published_checksum_is_compared_too(cache, tmp_path, monkeypatch):
    entry = replace(find_entry(NAME), sha256="0" * 64)
    monkeypatch.setattr(pmv.files.manifest, "manifest", lambda: {NAME: entry})
    mine = tmp_path / "download.pkl"
    mine.write_bytes(b"weights")
    with pytest.raises(AssetsError, match="the published one is 0000"):
        place(NAME, mine)
    assert not (cache / entry.file).exists()


def test_a_damaged_pin_says_what_to_remove(cache, tmp_path):
    mine = tmp_path / "download.pkl"
    mine.write_bytes(b"weights")
    place(NAME, mine)
    pin_path(find_entry(NAME), cache).write_text("{}")
    with pytest.raises(AssetsError, match="damaged; remove it"):
        cached(NAME)


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "no checkpoint is called that; there are heads, "), ("heads", "ships with pmv")]
)
def test_what_cannot_be_placed(cache, tmp_path, name, message):
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        place(name, tmp_path / "x")
    with pytest.raises(InputError, match="no such file"):
        place(NAME, tmp_path / "y")


def test_an_encoder_is_no_generator(cache):
    with pytest.raises(CheckpointError, match="not a generator"):
        resolve_generator("dual-encoder")
