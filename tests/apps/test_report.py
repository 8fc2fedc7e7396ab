"""The page of a run in a real browser, and the page that compares runs."""

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pmv.apps.head_model import ModelSettings
from pmv.apps.report import compare_runs, report_run
from pmv.errors import InputError
from tests.apps.conftest import Finished
from tests.browser import chromium

SMALL = ModelSettings(grid=32, faces=1500, texture=256)


@pytest.fixture(scope="module")
def written(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a finished run, far from the run: what it shows is inside it."""
    return report_run(finished.run, tmp_path_factory.mktemp("elsewhere") / "page.html", settings=SMALL)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    yield from chromium()


def open_page(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda request: told.append(request.url) if request.url.startswith("http") else None)
    page.goto(path.as_uri())
    return page, told


def apart(a: bytes, b: bytes) -> float:
    """Mean difference of two screenshots of one size in their middle, where no focus ring is drawn; of 255."""
    first, second = (np.array(Image.open(io.BytesIO(data)).convert("RGB")).astype(float) for data in (a, b))
    height, width, _ = np.minimum(first.shape, second.shape)
    return float(np.abs(first[:height, :width] - second[:height, :width])[20:-20, 20:-20].mean())


@pytest.mark.parametrize("width, scheme", [(400, "dark"), (1600, "light")])
def test_a_real_browser_shows_the_page_and_turns_the_head(browser: Any, written: Path, width: int, scheme: str):
    page, told = open_page(browser, written, width, scheme)
    canvas = page.wait_for_selector("canvas.head[data-ready=yes]", timeout=30_000)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out to the side"
    dark = "rgb(21, 23, 26)"
    ground = "getComputedStyle(document.body).backgroundColor"
    assert (page.evaluate(ground) == dark) == (scheme == "dark")
    page.click("#theme")
    assert (page.evaluate(ground) == dark) == (scheme == "light")

    before = canvas.screenshot()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    by_key = canvas.screenshot()
    assert by_key != before, "the arrow keys turn it"
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + box["height"] / 2)
    page.mouse.up()
    by_hand = canvas.screenshot()
    assert by_hand != by_key, "and so does the hand"
    canvas.focus()
    page.keyboard.press("Home")
    assert apart(canvas.screenshot(), before) < 0.5 < apart(by_hand, before), "and Home puts it back"

    slider = page.query_selector(".slider + input")
    cut = "document.querySelector('.slider').style.getPropertyValue('--cut')"
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate(cut) == "51%"
    assert page.evaluate("document.querySelectorAll('.plot .uplot').length") >= 3, "the curves are drawn"
    broken = "[...document.images].filter((image) => image.complete && image.naturalWidth === 0).length"
    assert page.evaluate(broken) == 0
    assert told == [], "no errors, and nothing was asked of the network"


def test_runs_are_compared(finished: Finished, tmp_path: Path):
    other = tmp_path / "<b>other"
    shutil.copytree(finished.run, other)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("threshold: 0.04", "threshold: 0.05"))
    page = compare_runs([finished.run, other], tmp_path / "compare.html").read_text()
    assert "edit.threshold</th><td>0.04</td><td>0.05</td>" in page and "tune.steps" not in page
    assert "tuned_psnr" in page and page.count("<img") == 6 and "&lt;b&gt;other" in page and "<b>other" not in page
    with pytest.raises(InputError, match="two or more"):
        compare_runs([other], tmp_path / "compare.html")


def test_a_run_without_a_head_has_a_page_too(finished: Finished, tmp_path: Path):
    run = tmp_path / "run"
    shutil.copytree(finished.run, run)
    (run / "inversion.safetensors").unlink()
    assert "<canvas" not in report_run(run, settings=SMALL).read_text()
    with pytest.raises(InputError, match="no such run folder"):
        report_run(tmp_path / "nobody")
