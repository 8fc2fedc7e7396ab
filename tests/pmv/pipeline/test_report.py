"""The page of a run: what is escaped, what is inside it, and what its pictures are made of."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from pmv import data_path
from pmv.files.artifacts import read_json
from pmv.pictures.images import write_png
from pmv.pictures.sheets import GAP, tile
from pmv.pipeline.config import load_config
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.report import HeadInPage, changed_settings, write_report
from pmv.pipeline.report_pictures import heat_map, in_colour, tinted, untiled
from pmv.stages.table import TABLE
from tests.pmv.pipeline import fakes

HOSTILE = "<script>alert(1)</script>\"'&"


class Tags(HTMLParser):
    """The tags of a page with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    photo = tmp_path / "photo.png"
    write_png(photo, np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
    folder = fakes.new_run(tmp_path / "run", photo)
    fakes.run(folder)
    return RunFolder(folder, fakes.TABLE)


def written(folder: RunFolder, whole: bool, head: HeadInPage | None = None, **changed: str) -> str:
    about = read_json(folder / "run.json") | changed
    config = load_config(fakes.TABLE, path=folder / "config.yaml")
    write_report(folder, config, about, whole, head)
    return (folder / "report.html").read_text()


def test_a_finished_run_s_page_stands_alone(run: RunFolder):
    page = written(run, True, HeadInPage(b"glTF", "#808080"))
    tags = Tags(page).found
    sources = [attributes["src"] or "" for _, attributes in tags if "src" in attributes]
    assert sources and all(source.startswith("data:") for source in sources), "nothing is fetched"
    assert "default-src 'none'" in page and "three.js" in page
    assert all(attributes.get("alt") is not None for tag, attributes in tags if tag == "img")
    assert any(tag == "canvas" and attributes["tabindex"] == "0" for tag, attributes in tags), "keys reach the head"
    assert any(attributes.get("href") == "00_draw/draw_start.png" for _, attributes in tags), "the whole file is linked"
    plots = re.findall(r'<script type="application/json">(.*?)</script>', page)
    assert json.loads(plots[0])["x"] == [0, 1, 2]
    while_it_goes_on = written(run, False)
    assert 'src="00_draw/draw_start.png"' in while_it_goes_on and "data:image" not in while_it_goes_on
    assert len(while_it_goes_on) < len(page)


@pytest.mark.parametrize("whole", [False, True])
def test_nothing_of_a_run_is_html(run: RunFolder, whole: bool):
    with open(run / "log.txt", "a", encoding="utf-8") as log:
        log.write(f"2026-01-01 00:00:00,000 WARNING {HOSTILE}\n")
    record = read_json(run / "02_fit" / "stage.json")
    record["losses"] = [{"step": i, HOSTILE: float(i)} for i in range(3)]
    record["numbers"][HOSTILE] = 1.0
    (run / "02_fit" / "stage.json").write_text(json.dumps(record))
    page = written(run, whole, command=HOSTILE)
    assert HOSTILE not in page and "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;") >= 3, "command, warning and number"


def test_what_is_shipped_is_small_and_carries_its_licence():
    folder = data_path("assets", "report")
    scripts = [path for path in folder.iterdir() if path.suffix == ".js"]
    assert sum(path.stat().st_size for path in scripts) < 1_000_000
    notice = (folder / "NOTICE").read_text()
    assert "three.js authors" in notice and "Leon Sorokin" in notice
    assert notice.count("Permission is hereby granted") == 2
    assert not any("</script" in path.read_text().lower() for path in scripts), "it would end the page's own"


def test_every_stage_has_words_and_every_pair_its_stages():
    notes = TABLE.notes
    assert set(notes.stages) == {stage.name for stage in TABLE}
    folders = {stage.folder for stage in TABLE}
    pairs = [pair for stage in notes.stages.values() for pair in stage.pairs]
    files = [*notes.given, *notes.result, *(name for pair in pairs for name in (pair.before, pair.after))]
    files += [name for strip in notes.strips for names in strip.columns.values() for name in names]
    assert all(name.split("/")[0] in folders for name in files)
    judge = notes.stages["evaluate"]
    assert judge.meaning("tuned_psnr").startswith("dB") and judge.meaning("tuned_lpips-alex").startswith("perceptual")
    assert judge.meaning("nothing") == ""


def test_settings_that_differ_from_the_base_config():
    assert changed_settings(load_config(TABLE)) == []
    changed = changed_settings(load_config(TABLE, settings=["tune.steps=7", "edit.threshold=0.04"]))
    assert [name for name, _, _ in changed] == ["tune.steps"] and changed[0][1] == 7


def test_pictures_of_differences_depth_and_sheets():
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert heat_map(black, black).max() < 10 and heat_map(black, white)[..., 0].min() > 200
    assert heat_map(black, np.full((4, 4, 3), 40, np.uint8)).shape == (8, 8, 3)
    near, far = in_colour(white)[0, 0], in_colour(black)[0, 0]
    assert near[0] > 200 and near[1] > 200 and near[2] < 80 and far[2] > far[1], "yellow is near, violet far"
    assert np.array_equal(tinted(white, white), white) and tinted(white, black)[0, 0, 0] > tinted(white, black)[0, 0, 1]
    pictures = [np.full((8, 8, 3), 10 * i, np.uint8) for i in range(5)]
    found = untiled(tile(pictures), 8, 5, GAP)
    assert all(np.array_equal(a, b) for a, b in zip(found, pictures)) and len(found) == 5
