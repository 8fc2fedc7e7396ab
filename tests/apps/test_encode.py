"""`pmv encode`: a head at once, which everything takes that takes a finished one, and a run that goes on from it."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from pmv.apps.cli.main import cli
from pmv.apps.encode import encode
from pmv.apps.export import export_run
from pmv.apps.head_model import ModelSettings
from pmv.apps.invert import Request, invert
from pmv.apps.render import write_sheet
from pmv.errors import InputError
from pmv.files.artifacts import read_header, read_json
from pmv.generators import load_generator
from pmv.generators.views import render_planes
from pmv.inversion import load_inversion
from pmv.pictures.images import read_image
from pmv.pipeline.packing import load_fields
from tests.apps.conftest import Finished
from tests.apps.test_cli import SMALL
from tests.encoder_files import write_encoders


@pytest.fixture(scope="module")
def request_(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """What is asked for, by a file of encoders that is named from the folder where it lies."""
    encoders = write_encoders(
        tmp_path_factory.mktemp("encoders") / "both.safetensors", load_generator(finished.checkpoint)
    )
    settings = [*SMALL, f"run.generator={finished.checkpoint}", f"seed.encoders={encoders}"]
    folder = finished.run.parent
    return Request(settings=settings, mask=folder / "mask.png", camera=folder / "camera.json")


@pytest.fixture(scope="module")
def encoded(request_: Request, finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encode(request_, finished.run.parent / "head.png", tmp_path_factory.mktemp("encoded") / "run")


def test_the_encoded_head_is_an_inversion(encoded: Path):
    generator, w, noise, camera = load_inversion(encoded)
    seed = load_fields(encoded / "01_seed" / "outputs.safetensors", ["encoded_w", "encoded_planes", "encoded_camera"])
    assert torch.equal(w, seed["encoded_w"]) and read_header(encoded / "inversion.safetensors")["encoded"] is True
    torch.testing.assert_close(generator.planes(w, noise), seed["encoded_planes"], atol=1e-4, rtol=0)
    torch.testing.assert_close(camera.cam2world, seed["encoded_camera"].cam2world)
    drawn = render_planes(generator, seed["encoded_planes"], w, camera).image.clamp(-1, 1)
    seen, _ = read_image(encoded / "01_seed" / "input_view.png")
    assert (drawn - seen).abs().max() < 0.02
    page = (encoded / "report.html").read_text()
    assert "the encoded head" in page and not read_json(encoded / "run.json")["complete"]


def test_it_is_rendered_and_exported_as_any_other(encoded: Path, tmp_path: Path):
    write_sheet(encoded, tmp_path / "views.png", [0.0, 30.0], 0.0)
    assert (tmp_path / "views.png").is_file()
    export_run(encoded, "ply", tmp_path / "head.ply", ModelSettings(grid=24, faces=None, texture=32))
    assert (tmp_path / "head.ply").stat().st_size > 1000


def test_a_run_goes_on_from_it(request_: Request, finished: Finished, tmp_path: Path):
    photo = finished.run.parent / "head.png"
    run = encode(request_, photo, tmp_path / "run")
    again = encode(request_, photo, tmp_path / "run")  # may be repeated
    assert again == run
    invert(Request(), resume=run)
    about = read_json(run / "run.json")
    assert about["complete"] and not about["stages"]["seed"]["ran"]
    assert "encoded" not in read_header(run / "inversion.safetensors")
    with pytest.raises(InputError, match="holds a finished inversion"):
        encode(request_, photo, run)


def test_the_command_line_says_what_is_missing(finished: Finished, tmp_path: Path, told_before):
    photo = finished.run.parent / "head.png"
    out = tmp_path / "run"
    words = ["encode", str(photo), "--out", str(out), "--generator", str(finished.checkpoint)]
    result = CliRunner().invoke(cli, words)
    assert isinstance(result.exception, InputError) and not out.exists()
    told_before(str(result.exception))
