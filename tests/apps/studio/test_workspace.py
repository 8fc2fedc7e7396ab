"""Whose heads are whose."""

import os
import stat
from pathlib import Path

import pytest

from pmv.apps.studio import workspace
from pmv.apps.studio.files import export_name, find, offered
from pmv.apps.studio.workspace import HeadFolder, People
from pmv.errors import InputError


def finish(head: HeadFolder) -> None:
    head.run.mkdir()
    (head.run / "inversion.safetensors").write_bytes(b"")


def test_a_head_is_found_by_its_owner_alone(tmp_path: Path):
    people = People(tmp_path / "studio")
    ada, bob = people.workspace("account:ada"), people.workspace("account:bob")
    head = ada.new("portrait.png", "heads")
    assert people.workspace("account:ada").head(head.name) == head and ada.heads() == [head]
    assert bob.heads() == []
    with pytest.raises(InputError, match="no such head"):
        bob.head(head.name)


@pytest.mark.parametrize("name", ["", "..", "../x", "/etc", None, 3, ["a"], "0" * 15, "0" * 17, "A" * 16, "0" * 16])
def test_names_from_a_browser_are_no_paths(tmp_path: Path, name: object):
    people = People(tmp_path / "studio")
    with pytest.raises(InputError, match="no such head"):
        people.workspace("account:ada").head(name)


def test_workspaces_cannot_be_guessed_and_stay_where_they_are(tmp_path: Path):
    first = People(tmp_path / "one").workspace("account:ada").path
    assert People(tmp_path / "one").workspace("account:ada").path == first, "also after the studio was closed"
    assert People(tmp_path / "two").workspace("account:ada").path.name != first.name, "each studio has its own key"
    assert "ada" not in str(first.name)


@pytest.mark.skipif(os.name != "posix", reason="needs modes of files")
def test_nobody_else_on_the_machine_reads_them(tmp_path: Path):
    people = People(tmp_path / "studio")
    head = people.workspace("account:ada").new("portrait.png", "heads")
    assert stat.S_IMODE(people.folder.stat().st_mode) == stat.S_IMODE(head.path.stat().st_mode) == 0o700
    assert stat.S_IMODE((people.folder / "key").stat().st_mode) == 0o600


def test_there_is_an_end_to_heads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workspace, "MOST_HEADS", 2)
    mine = People(tmp_path / "studio").workspace("account:ada")
    first = mine.new("a\nb.png", "heads")
    assert first.about.name == "a?b.png"
    mine.new("b.png", "heads")
    with pytest.raises(InputError, match="remove one"):
        mine.new("c.png", "heads")
    mine.remove(first)
    mine.new("c.png", "heads")


def test_only_what_is_meant_to_be_taken_away_is_offered(tmp_path: Path):
    head = People(tmp_path / "studio").workspace("account:ada").new("portrait.png", "heads")
    assert offered(head) == {}
    finish(head)
    head.exports.mkdir()
    for path in (head.exports / export_name("glb", "run"), head.exports / "other.glb", head.run / "report.html"):
        path.write_bytes(b"content")
    (head.exports / "head.ply").symlink_to("/etc/passwd")
    assert set(offered(head)) == {"head.glb", "report.html"}
    assert find(head, "head.glb") == (head.exports / "head.glb", "model/gltf-binary")
    for name in ("about.json", "head.ply", "../about.json", "other.glb", "inversion.safetensors", ""):
        with pytest.raises(InputError, match="no such file"):
            find(head, name)
