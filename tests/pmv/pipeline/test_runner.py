"""The runner on fake stages: what runs again, what survives a death, what a run leaves behind."""

import fcntl
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pmv.errors import InputError, PmvError, Stopped
from pmv.files.artifacts import SEAL, file_hash, load_tensors, read_header, save_tensors, write_json
from pmv.fitting.heads_features import FeatureShape, HeadsFeatures, save_heads_features
from pmv.pipeline.config import GeneratorConfig, RunConfig, load_config, plain, preset_names, read_yaml, resolve
from pmv.pipeline.folder import RunFolder
from pmv.pipeline.hashes import stage_seed
from pmv.pipeline.runner import Runner
from pmv.pipeline.table import Product
from pmv.stages.edit_list import Edit
from pmv.stages.sources import changed_edits, update_sources
from pmv.stages.table import TABLE
from tests.pmv.pipeline import fakes

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def run(tmp_path: Path, photo: Path) -> Path:
    return fakes.new_run(tmp_path / "run", photo)


def outputs(run: Path) -> dict[str, str]:
    found = [*run.glob("*/outputs.safetensors"), *run.glob("inversion.safetensors")]
    return {str(path.relative_to(run)): file_hash(path) for path in found}


def test_a_run_leaves_the_folder_of_the_design(run: Path):
    assert fakes.run(run) == ["draw", "fit", "tune", "judge"]
    names = {path.name for path in run.iterdir() if not path.name.startswith(".")}
    stages = {stage.folder for stage in fakes.TABLE}
    files = {"config.yaml", "run.json", "log.txt", "report.html", "inversion.safetensors", "source"}
    assert names == stages | files
    record = json.loads((run / "02_fit" / "stage.json").read_text())
    assert [row["step"] for row in record["losses"]] == [0, 1, 2]
    assert record["inputs"]["base"]["from"] == "draw" and record["config"] == {"steps": 3}
    assert record["files"] == ["fit_start.png", "outputs.safetensors", "stage.json"]
    about = json.loads((run / "run.json").read_text())
    assert about["complete"] and about["seed"] == 3 and about["packages"]["torch"] == torch.__version__.split("+")[0]
    assert all(s["seconds"] >= 0 and s["process_peak_mb"] > 10 for s in about["stages"].values())
    page = (run / "report.html").read_text()
    assert "04_judge" in page and 'href="00_draw/draw_start.png"' in page and "psnr" in page
    assert "04_judge: " in (run / "log.txt").read_text()


def test_nothing_runs_twice(run: Path):
    fakes.run(run)
    before = outputs(run)
    assert fakes.run(run) == []
    assert outputs(run) == before


@pytest.mark.parametrize(
    "settings, expected",
    [
        (["tune.steps=5"], ["tune", "judge"]),
        (["fit.steps=4"], ["fit", "tune", "judge"]),
        (["draw.gain=1"], ["draw", "fit", "tune", "judge"]),
        (["draw.offset=1"], ["draw"]),  # it runs again and gives the same, so nothing follows
        (["run.seed=4"], ["draw", "fit", "tune", "judge"]),
        (["run.device=auto"], []),
    ],
)
def test_a_changed_setting_runs_what_depends_on_it(run: Path, settings: list[str], expected: list[str]):
    fakes.run(run)
    assert fakes.run(run, settings) == expected
    assert read_yaml(run / "config.yaml") == fakes.config(*settings).as_dict()


def test_another_perceptual_network_runs_everything_again_and_the_same_under_another_name_nothing(run, tmp_path):
    def store(path: Path, weight: float) -> Path:
        features = HeadsFeatures(FeatureShape((3, 4), 2))
        features.load_state_dict({k: torch.full_like(v, weight) for k, v in features.state_dict().items()})
        save_heads_features(features, path, {})
        write_json(path.with_suffix(".json"), {"sha256": file_hash(path)})
        return path

    network, copy = (store(tmp_path / f"{name}.safetensors", 1.0) for name in "ab")
    first = [f"run.perceptual={network}"]
    assert fakes.run(run) == fakes.run(run, first) == ["draw", "fit", "tune", "judge"]
    assert fakes.run(run, [f"run.perceptual={copy}"]) == []
    store(network, 2.0)
    assert fakes.run(run, first) == ["draw", "fit", "tune", "judge"]
    network.unlink()
    with pytest.raises(PmvError, match=r"a\.safetensors: no such file"):
        fakes.run(run, first)


def test_from_and_until(run: Path):
    assert fakes.run(run, until="fit") == ["draw", "fit"]
    assert not json.loads((run / "run.json").read_text())["complete"]
    assert not (run / "inversion.safetensors").exists()
    assert fakes.run(run) == ["tune", "judge"]
    before = outputs(run)
    assert fakes.run(run, first="fit") == ["fit", "tune", "judge"]
    assert outputs(run) == before
    assert fakes.run(run, ["draw.gain=3"], first="judge", until="judge") == ["draw", "fit", "tune", "judge"]
    assert fakes.run(run, ["draw.gain=3"], until="draw") == []
    assert json.loads((run / "run.json").read_text())["complete"]  # the rest is still up to date
    with pytest.raises(InputError, match=r"after --until"):
        fakes.run(run, first="tune", until="fit")
    with pytest.raises(InputError, match="draw, fit, tune, judge"):
        fakes.run(run, first="tun")


def test_a_dropped_edit_runs_what_depends_on_it_and_can_be_taken_back(run: Path):
    fakes.run(run)
    before = outputs(run)
    edit = run / "00_draw" / "edit.png"
    Image.new("RGB", (8, 8), "red").save(edit)
    assert fakes.run(run) == ["draw", "tune", "judge"]  # `fit` takes the picture without the edit
    assert edit.exists()
    assert outputs(run)["02_fit/outputs.safetensors"] == before["02_fit/outputs.safetensors"]
    assert outputs(run)["inversion.safetensors"] != before["inversion.safetensors"]
    assert fakes.run(run) == []
    edit.unlink()
    assert fakes.run(run) == ["draw", "tune", "judge"]
    assert outputs(run) == before


def test_damaged_outputs_are_made_again(run: Path):
    fakes.run(run)
    before = outputs(run)
    path = run / "02_fit" / "outputs.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    (run / "03_tune" / "stage.json").write_text("{")
    (run / "inversion.safetensors").unlink()
    assert fakes.run(run) == ["fit", "tune"]
    assert outputs(run) == before


def test_killed_in_each_stage_and_resumed_gives_the_same_bytes(tmp_path: Path, photo: Path):
    reference = fakes.new_run(tmp_path / "reference", photo)
    fakes.run(reference)
    names = [stage.name for stage in fakes.TABLE]
    command = [sys.executable, str(Path(str(fakes.__file__)))]
    processes = []
    for name in names:
        run = fakes.new_run(tmp_path / name, photo)
        environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        processes.append(subprocess.Popen([*command, str(run), name], env=environment, stderr=subprocess.DEVNULL))
    for process, (index, name) in zip(processes, enumerate(names), strict=True):
        assert process.wait(120) == -signal.SIGKILL
        run = tmp_path / name
        assert list(run.glob(f".tmp-*_{name}")), "it died in the middle of the stage"
        assert sorted(path.name for path in run.glob("0*")) == [s.folder for s in fakes.TABLE[:index]]
        assert fakes.run(run) == names[index:]
        assert outputs(run) == outputs(reference)
        assert not list(run.glob(".tmp-*"))


def test_a_run_that_is_told_to_stop_keeps_what_is_finished_and_goes_on(run: Path):
    asked: list[bool] = []

    def after_two_stages() -> bool:
        asked.append(True)
        return len(asked) > 2

    folder = RunFolder(run, fakes.TABLE)
    with pytest.raises(Stopped):
        Runner(folder, fakes.config(), "fake", fakes.generator(), after_two_stages).run()
    assert sorted(path.name for path in run.glob("0*")) == [stage.folder for stage in fakes.TABLE[:2]]
    assert not list(run.glob(".tmp-*")) and "interrupted in tune" in (run / "log.txt").read_text()
    assert fakes.run(run) == ["tune", "judge"]


def test_an_interruption_that_a_library_made_an_error_of_is_still_one(run: Path, monkeypatch: pytest.MonkeyPatch):
    """NumPy's C interface, for one, says ImportError for whatever ends an import, a signal's exception too."""
    told: list[bool] = []

    def strike(*_: object):
        told.append(True)
        raise ImportError("numpy.core.multiarray failed to import")

    with monkeypatch.context() as patched:
        patched.setattr(fakes.TABLE[1].code, "run", strike)
        with pytest.raises(Stopped):
            Runner(RunFolder(run, fakes.TABLE), fakes.config(), "fake", fakes.generator(), lambda: bool(told)).run()
    name = fakes.TABLE[1].name
    log = (run / "log.txt").read_text()
    assert f"interrupted in {name}" in log and "Traceback" not in log
    assert fakes.run(run) == [stage.name for stage in fakes.TABLE[1:]]


def test_a_death_while_folders_are_swapped_loses_nothing(run: Path):
    fakes.run(run)
    before = outputs(run)
    (run / "00_draw" / "notes.txt").write_text("mine")
    (run / "00_draw").rename(run / ".old-00_draw")  # between the two renames
    (run / ".tmp-00_draw").mkdir()
    (run / ".tmp-source").mkdir()
    (run / ".run.json.1.part").touch()
    assert fakes.run(run) == []
    assert (run / "00_draw" / "notes.txt").read_text() == "mine"
    assert not [*run.glob(".tmp-*"), *run.glob(".old-*"), *run.glob(".*.part")]
    assert outputs(run) == before
    (run / ".old-00_draw").mkdir()  # after both renames
    assert fakes.run(run) == [] and not (run / ".old-00_draw").exists()
    fakes.run(run, first="draw", until="draw")
    assert (run / "00_draw" / "notes.txt").exists()


def test_a_failing_stage_leaves_nothing_half_written(run: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object):
        raise KeyboardInterrupt

    fakes.run(run, until="draw")
    monkeypatch.setattr(fakes.TABLE[1].implementation, "run", fail)
    with pytest.raises(KeyboardInterrupt):
        fakes.run(run)
    assert [path.name for path in run.glob("0*")] == ["00_draw"] and not list(run.glob(".tmp-*"))
    assert f"--resume {run}" in (run / "log.txt").read_text()
    monkeypatch.undo()
    assert fakes.run(run) == ["fit", "tune", "judge"]


def test_two_processes_do_not_share_a_folder(run: Path):
    with open(run / ".lock", "a+") as other:
        other.write("4711")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="4711"):
            fakes.run(run)
    assert fakes.run(run) == ["draw", "fit", "tune", "judge"]


def test_sources_are_kept_replaced_and_refused(run: Path, tmp_path: Path, photo: Path):
    folder = RunFolder(run, fakes.TABLE)
    mask, labels = tmp_path / "m.png", tmp_path / "dataset.json"
    Image.fromarray(np.pad(np.full((4, 4), 255, np.uint8), 2)).save(mask)
    label = [1.0, 0, 0, 0, 0, -1, 0, 0, 0, 0, -1, 2.7, 0, 0, 0, 1, 4.2647, 0, 0.5, 0, 4.2647, 0.5, 0, 0, 1]
    labels.write_text(json.dumps({"labels": [["other.png", label[:11] + [9.0] + label[12:]], ["photo.png", label]]}))
    update_sources(folder, mask=mask)
    update_sources(folder, camera=labels)
    values = folder.sources().read()
    assert values["photo_mask"].mean() == 0.25 and values["photo_camera"].labels()[0].tolist() == pytest.approx(label)
    assert folder.sources().hashes()["photo"] == file_hash(photo) and folder.sources().hashes()["photo_edits"] == "none"


def test_seeds_differ_between_stages_and_not_between_runs():
    assert stage_seed(0, "tune") == stage_seed(0, "tune")
    assert len({stage_seed(s, n) for s in (0, 1) for n in ("tune", "fit")}) == 4


# --- the table


def test_the_real_table_fits_together():
    given = TABLE.origins()
    assert given["unedited_state"] == "tune" and given["tuned_state"] == "retune" and given["photo"] == "source"


def test_a_broken_table_fails_before_any_work(run: Path):
    @dataclass(frozen=True)
    class DrawInputs:
        unheard: torch.Tensor

    class Broken(fakes.FakeStage):
        inputs = DrawInputs  # type: ignore[assignment]

    first = fakes.TABLE[0]
    broken = Broken(first.number, first.name, first.module, first.implementation)
    with pytest.raises(ValueError, match="unheard"):
        Runner(
            RunFolder(run, replace(fakes.TABLE, stages=(broken, *fakes.TABLE[1:]))),
            fakes.config(),
            "",
            fakes.generator(),
        )
    with pytest.raises(ValueError, match="takes base"):
        replace(fakes.TABLE, stages=fakes.TABLE[1:]).origins()
    twice = fakes.FakeStage(
        9,
        "draw2",
        "fakes",
        fakes.SimpleNamespace(
            Draw2Inputs=fakes.DrawInputs, Draw2Config=fakes.DrawConfig, Draw2Outputs=fakes.DrawOutputs, run=fakes.draw
        ),
    )
    with pytest.raises(ValueError, match="gives image, which draw gives already"):
        replace(fakes.TABLE, stages=(*fakes.TABLE, twice)).origins()
    lost = Product("head.safetensors", {"w": "nowhere"}, fakes.save_inversion)
    with pytest.raises(ValueError, match="takes nowhere, which no stage gives"):
        replace(fakes.TABLE, products=(lost,)).origins()


# --- configs


def test_base_config_and_dataclasses_agree():
    blocks = read_yaml(ROOT / "configs" / "base.yaml")
    classes = {"run": RunConfig, "generator": GeneratorConfig, **{stage.name: stage.config for stage in TABLE}}
    assert list(blocks) == list(classes)
    for name, cls in classes.items():
        assert sorted(blocks[name]) == sorted(field.name for field in fields(cls)), name
    config = load_config(TABLE)
    for stage in TABLE:
        block = config.stages[stage.name]
        assert plain(block) == plain(stage.config()), f"{stage.name}: base.yaml and the defaults in code differ"


def test_every_value_of_the_base_config_is_explained():
    lines = (ROOT / "configs" / "base.yaml").read_text().splitlines()
    for block in load_config(TABLE).as_dict():
        first = lines.index(f"{block}:") + 1
        assert lines[first].startswith("  # "), block


def test_every_option_is_read_by_its_stage():
    for stage in TABLE:
        used = {getattr(value, "__module__", None) for value in vars(stage.code).values()}  # its own, what it calls
        files = [sys.modules[name].__file__ for name in used if name and name.startswith("pmv.stages.")]
        code = "".join(Path(str(file)).read_text() for file in files)
        for field in fields(stage.config):
            assert f"config.{field.name}" in code, f"{stage.name}.{field.name} is an option that nothing reads"


def test_presets_resolve_and_differ_from_base():
    assert preset_names() == ["demo", "fidelity", "hfgi3d"]
    base = load_config(TABLE).as_dict()
    for name in preset_names():
        resolved = load_config(TABLE, [name]).as_dict()
        for block, values in read_yaml(ROOT / "configs" / "presets" / f"{name}.yaml").items():
            for key, value in values.items():
                assert resolved[block][key] == value, f"{name}: {block}.{key}"
        assert resolved != base
    official = load_config(TABLE, ["hfgi3d"]).stages
    assert (official["tune"].steps, official["tune"].hold_weight, official["coarse"].views) == (1000, 0.0, 30)


def test_a_resolved_config_reads_back(tmp_path: Path):
    config = load_config(TABLE, ["demo"], ["tune.steps=7", "coarse.groups=[decoder, backbone]"])
    (tmp_path / "config.yaml").write_text(config.as_yaml())
    assert load_config(TABLE, path=tmp_path / "config.yaml") == config
    assert config.stages["tune"].steps == 7 and config.stages["coarse"].groups == ("decoder", "backbone")


@pytest.mark.parametrize(
    "setting, message",
    [
        ("tune.stepz=3", "did you mean tune.steps?"),
        ("tun.steps=3", "did you mean tune.steps?"),
        ("tune.steps=3.5", "whole number"),
        ("tune.steps=true", "whole number"),
        ("tune.steps=", "whole number"),
        ("tune.learning_rate=fast", "a number"),
        ("tune.learning_rate=.nan", "a number"),
        ("coarse.centre=middle", "one of input, front"),
        ("coarse.groups=all", "a list"),
        ("inpaint.harmonize=1", "true or false"),
        ("tune.steps", "stage.key=value"),
        ("steps=3", "stage.key=value"),
        ("tune.steps=[", "YAML"),
    ],
)
def test_wrong_settings_say_what_is_wrong(setting: str, message: str):
    with pytest.raises(InputError) as caught:
        load_config(TABLE, [], [setting])
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_are_read_kindly_and_presets_strictly(tmp_path: Path):
    config = load_config(TABLE, [], ["tune.learning_rate=1e-3", "tune.hold_weight=2", "prepare.resolution=null"])
    assert config.stages["tune"].learning_rate == 1e-3 and config.stages["tune"].hold_weight == 2.0
    assert load_config(TABLE, [], ["prepare.resolution=64"]).stages["prepare"].resolution == 64
    with pytest.raises(InputError, match="demo, fidelity, hfgi3d"):
        load_config(TABLE, ["fast"])
    for text in ("tune: 3", "[1]", "tune: {steps: [}"):
        (tmp_path / "mine.yaml").write_text(text)
        with pytest.raises(InputError, match=r"mine\.yaml"):
            load_config(TABLE, [str(tmp_path / "mine.yaml")])
    with pytest.raises(InputError, match=r"lacks run\.generator"):
        resolve(TABLE, [("nothing", {})])


# --- what others may have done to a run


def test_a_damaged_result_is_written_again(run: Path):
    fakes.run(run)
    before = outputs(run)
    path = run / "inversion.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert outputs(run) != before
    assert fakes.run(run) == []
    assert outputs(run) == before


def test_a_result_without_a_seal_is_written_again_with_one(run: Path):
    fakes.run(run)
    before, path = outputs(run), run / "inversion.safetensors"
    header, tensors = read_header(path), load_tensors(path)
    header.pop(SEAL)
    save_tensors(path, tensors, header)
    assert fakes.run(run) == [] and outputs(run) == before


def test_a_stage_that_was_moved_and_linked_goes_on(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    fakes.run(run)
    before, disk = outputs(run), tmp_path / "disk"
    disk.mkdir()
    (run / "02_fit").rename(disk / "02_fit")
    (run / "02_fit").symlink_to(disk / "02_fit")
    (disk / "02_fit" / "notes.txt").write_text("mine")
    assert fakes.run(run) == [] and (run / "02_fit").is_symlink()
    there = {path.name: file_hash(path) for path in (disk / "02_fit").iterdir()}
    with caplog.at_level("WARNING"):
        assert fakes.run(run, first="fit", until="fit") == ["fit"]
    assert "was a link and is a folder of the run now" in caplog.text and "notes.txt" in caplog.text
    assert not (run / "02_fit").is_symlink() and outputs(run) == before
    assert {path.name: file_hash(path) for path in (disk / "02_fit").iterdir()} == there


def test_a_link_to_something_else_than_the_stage_is_refused(run: Path):
    fakes.run(run)
    (run / "02_fit").rename(run / "03_kept")
    (run / "02_fit").symlink_to(run / "03_tune")
    with pytest.raises(InputError, match="something else than the stage's own folder"):
        fakes.run(run)


def test_files_and_links_of_the_user_survive_a_stage_that_runs_again(run: Path, tmp_path: Path):
    fakes.run(run)
    (run / "02_fit" / "notes.txt").write_text("mine")
    (run / "02_fit" / "link").symlink_to(tmp_path / "anywhere")
    fakes.run(run, first="fit")
    assert (run / "02_fit" / "notes.txt").read_text() == "mine"
    assert (run / "02_fit" / "link").readlink() == tmp_path / "anywhere"


def test_edits_are_as_before_where_the_disk_is_full(run: Path, photo: Path):
    folder = RunFolder(run, fakes.TABLE)
    with changed_edits(folder, [Edit(photo)]):
        pass
    before = {path.name: path.read_bytes() for path in folder.source.iterdir()}
    for clear in (False, True):
        with pytest.raises(OSError, match="full"), changed_edits(folder, [Edit(photo, name="more")], clear):
            folder.tidy()  # as the runner does
            raise OSError(28, "full")
        assert {path.name: path.read_bytes() for path in folder.source.iterdir()} == before
    assert not list(run.glob(".tmp-*"))
