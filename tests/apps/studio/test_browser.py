"""The page in a real browser: from a photo to a head that is taken away."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trimesh

from pmv.apps.studio.jobs import read_job
from pmv.apps.studio.opened import Studio
from tests.apps.studio.conftest import Opened
from tests.browser import chromium
from tests.conftest import ROOT

pytestmark = pytest.mark.slow  # a page of 45 components, drawn by software, and a run: minutes

PORTRAIT = ROOT / "assets" / "portraits" / "tattoo.png"
_PATIENCE = 240_000


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


@pytest.fixture(scope="module")
def studio(open_studio: Opened, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return open_studio(tmp_path_factory.mktemp("open") / "studio")


def drag(page: Any, box: dict[str, float], start: tuple[float, float], *way: tuple[float, float]) -> None:
    """Press at a point of a box, in fractions of it, and move over others, in pixels from there."""
    x, y = box["x"] + start[0] * box["width"], box["y"] + start[1] * box["height"]
    page.mouse.move(x, y)
    page.mouse.down()
    for dx, dy in way:
        page.mouse.move(x + dx, y + dy, steps=4)
    page.mouse.up()


def says(page: Any, place: str, text: str) -> None:
    """Wait until a place of the page says something."""
    page.wait_for_function(
        "([place, text]) => document.querySelector(place)?.innerText.includes(text)", arg=[place, text]
    )


def test_from_a_photo_to_a_file(browser: Any, studio: Studio, tmp_path: Path):
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    told: list[str] = []
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    own = studio.address.rstrip("/")
    page.on("request", lambda request: told.append(request.url) if not _own(request.url, own) else None)
    page.goto(studio.address)

    # a photo, and its crop moved by hand
    page.set_input_files("#upload input[type=file]", str(PORTRAIT))
    frame = page.wait_for_selector("#crop .frame")
    page.wait_for_selector(".pmv-views figure >> nth=2")
    assert "--x:0.5;" in frame.get_attribute("style")
    drag(page, page.query_selector("#crop .square").bounding_box(), (0.5, 0.5), (20, 6))
    page.wait_for_function("!document.querySelector('#crop .frame').getAttribute('style').includes('--x:0.5;')")
    (head,) = studio.people.folder.glob("*/*/by_hand.json")
    head = head.parent
    page.wait_for_function("document.querySelector('#to-edit').offsetParent !== null")

    # painted on
    page.click("#to-edit")
    canvas = page.wait_for_selector("#painter canvas")
    canvas.scroll_into_view_if_needed()
    page.wait_for_timeout(2000)
    drag(page, canvas.bounding_box(), (0.5, 0.6), (40, 10), (70, -10))
    page.click("#take-painting")
    says(page, "#edited", "painted")

    # run, stopped, run on
    page.click("#to-run")
    page.get_by_role("button", name="Settings").click()
    page.fill("textarea", "latent.steps=100000")
    page.click("#run")
    says(page, "#status", "latent: ")
    page.wait_for_selector("#status img")
    page.click("#stop")
    says(page, "#status", "was stopped")
    assert (head / "run" / "00_prepare").is_dir() and not (head / "run" / "02_latent").exists()
    kept = (head / "run" / "00_prepare" / "stage.json").stat().st_mtime_ns
    page.fill("textarea", "")
    page.click("#run")
    says(page, "#status", "The run is done")
    assert (head / "run" / "00_prepare" / "stage.json").stat().st_mtime_ns == kept, "what was done is not done again"
    assert (head / "run" / "source" / "edits.yaml").is_file(), "with what was painted"
    assert (job := read_job(head)) is not None and job.kind == "run"

    # a tab that is closed loses nothing
    page.close()
    page = context.new_page()
    page.set_default_timeout(_PATIENCE)
    page.goto(studio.address)
    page.get_by_role("tab", name="4 Head").click()
    page.wait_for_selector("#view img")

    # turned, by keys as by hand
    before = page.get_attribute("#view img", "src")
    page.focus("#yaw input[type=range]")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    page.wait_for_function("before => document.querySelector('#view img').src !== before", arg=before)

    # taken away, and looked at on its own page
    page.click("#export")
    page.wait_for_selector("#files a")
    with page.expect_download() as download:
        page.click("#files a")
    download.value.save_as(tmp_path / "head.glb")
    assert len(trimesh.load(tmp_path / "head.glb").geometry) == 1
    with context.expect_page() as opened:
        page.click("#pages a")
    canvas = opened.value.wait_for_selector("canvas.head[data-ready=yes]", timeout=_PATIENCE)
    seen = canvas.screenshot()
    canvas.focus()
    opened.value.keyboard.press("ArrowRight")
    assert canvas.screenshot() != seen, "the report's head turns, though its scripts are nobody's"

    stranger = browser.new_context().new_page()
    assert stranger.goto(f"{own}/studio/files/{head.name}/head.glb").status == 404
    assert [line for line in told if "status of 404" not in line] == []


def _own(url: str, own: str) -> bool:
    return url.startswith((own, "data:", "blob:"))
