"""Which config goes with which generator, and that every number of it reaches what it is meant for."""

import math
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from pmv.apps import invert as invert_module
from pmv.apps.invert import Request, invert
from pmv.errors import InputError
from pmv.files.artifacts import file_hash, read_json
from pmv.files.fetch import place
from pmv.files.manifest import CACHE_VARIABLE, manifest
from pmv.generators import EMBEDDED, EG3DConfig, EG3DGenerator
from pmv.generators.settings import with_settings
from pmv.geometry.camera import EG3D_FOCAL
from pmv.pictures.images import write_png
from pmv.pipeline.config import GeneratorConfig, load_config, plain, read_yaml
from pmv.pipeline.runner import Runner
from pmv.stages.coarse import pseudo_cameras
from pmv.stages.domain import domain_layers, domain_names, find_domain, guess_domain
from pmv.stages.evaluate import turntable
from pmv.stages.table import TABLE
from tests.conftest import ROOT

EMBEDDED_NUMBERS = read_json(EMBEDDED["heads"].with_suffix(".json"))["config"]
DOMAINS = ("cars", "cats", "ffhq", "heads")


def configured(domain: str, *settings: str, presets=()):
    run = replace(load_config(TABLE).run, domain=domain)
    _, layers = domain_layers(run, SPECS["ffhq"])
    return load_config(TABLE, presets, settings, between=layers)


def official(pivot, radius=2.7, box=1.0, white=False, near=2.25, far=3.3, cars=False) -> dict:
    """Constructor arguments as EG3D's train.py writes them."""
    rendering = {
        "superresolution_module": f"training.superresolution.SuperresolutionHybrid{'2X' if cars else '8XDC'}",
        "c_gen_conditioning_zero": cars,
        "c_scale": 1,
        "ray_start": near,
        "ray_end": far,
        "box_warp": box,
        "white_back": white,
        "avg_camera_radius": radius,
        "avg_camera_pivot": pivot,
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
    }
    size = 128 if cars else 512
    return {"z_dim": 512, "c_dim": 25, "w_dim": 512, "img_resolution": size, "rendering_kwargs": rendering}


def spec_of(kwargs: dict):
    """What a reader makes of the numbers, without the thirty million weights."""
    config = EG3DConfig.from_init_kwargs(kwargs, 64)
    shared = {name: getattr(config, name) for name in SETTINGS if hasattr(config, name)}
    return SimpleNamespace(family="eg3d", **shared)


SETTINGS = [field.name for field in fields(GeneratorConfig)]
SPECS = {
    "ffhq": spec_of(official([0, 0, 0.2])),
    "cats": spec_of(official([0, 0, -0.06])),
    "cars": spec_of(official([0, 0, 0], 1.7, 1.6, True, 0.1, 2.6, cars=True)),
    "heads": EG3DGenerator(EG3DConfig.small(plane_resolution=8, channel_base=64, channel_max=8)).spec,
}


def test_there_is_a_config_for_each_domain_and_it_resolves():
    assert tuple(domain_names()) == DOMAINS
    base = load_config(TABLE).as_dict()
    for domain in DOMAINS:
        blocks = read_yaml(ROOT / "configs" / "generators" / f"{domain}.yaml")
        resolved = configured(domain).as_dict()
        for name, block in blocks.items():
            for key, value in block.items():
                assert resolved[name][key] == value, f"{domain}: {name}.{key}"
        assert resolved != base


@pytest.mark.parametrize("domain", ["ffhq", "cats", "cars"])
def test_the_numbers_are_those_of_the_official_training_code(domain):
    block = plain(configured(domain).generator)
    spec = SPECS[domain]
    for name in ("radius", "near", "far", "background"):
        assert block[name] == getattr(spec, name), name
    assert tuple(block["pivot"]) == spec.pivot


def test_the_heads_config_has_the_embedded_generators_cameras():
    spec, block = EMBEDDED_NUMBERS, plain(configured("heads").generator)
    for name in ("radius", "pivot", "focal", "full_head"):
        assert list(np.ravel(block[name])) == list(np.ravel(spec[name])), name


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_guessed_from_the_checkpoint(domain):
    assert guess_domain(SPECS[domain]) == domain


def test_panoheads_family_is_a_head_whatever_its_pivot_says():
    assert guess_domain(SimpleNamespace(**{**vars(SPECS["ffhq"]), "family": "panohead"})) == "heads"


def test_the_manifest_knows_by_name_and_by_content(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    run = load_config(TABLE).run
    assert find_domain(run, SPECS["ffhq"]) == ("heads", False)  # the embedded one's file says everything itself
    assert find_domain(replace(run, generator="afhqcats512-128"), SPECS["ffhq"]) == ("cats", True)
    mine = tmp_path / "mine.pkl"
    mine.write_bytes(b"weights")
    assert find_domain(replace(run, generator=str(mine)), SPECS["ffhq"]) == ("ffhq", False)
    place("shapenetcars128-64", mine)
    assert find_domain(replace(run, generator=str(mine)), SPECS["ffhq"]) == ("cars", True)
    for entry in manifest().values():
        assert entry.domain is None or entry.domain in DOMAINS


def test_an_unknown_domain_is_told():
    run = replace(load_config(TABLE).run, domain="dogs")
    with pytest.raises(InputError, match="'dogs'; there are auto, cars, cats, ffhq, heads"):
        find_domain(run, SPECS["ffhq"])


def test_a_checkpoints_own_numbers_win_over_a_guess_and_lose_to_a_named_domain():
    spec = SimpleNamespace(**{**vars(SPECS["ffhq"]), "radius": 3.1, "near": 2.5})
    run = replace(load_config(TABLE).run, generator="nowhere.pkl")
    guessed = load_config(TABLE, between=domain_layers(run, spec)[1]).generator
    assert (guessed.radius, guessed.near, guessed.focal) == (3.1, 2.5, EG3D_FOCAL)
    named = load_config(TABLE, between=domain_layers(replace(run, domain="ffhq"), spec)[1]).generator
    assert (named.radius, named.near) == (2.7, 2.25)
    told = load_config(TABLE, (), ["generator.radius=2.9"], between=domain_layers(run, spec)[1]).generator
    assert told.radius == 2.9


def test_cars_have_their_focal_length_though_no_checkpoint_says_it():
    run = replace(load_config(TABLE).run, generator="nowhere.pkl")
    domain, layers = domain_layers(run, SPECS["cars"])
    assert domain == "cars" and SPECS["cars"].focal == EG3D_FOCAL
    assert load_config(TABLE, between=layers).generator.focal == 1.7074


def test_presets_lie_over_the_generators_config():
    assert configured("ffhq").stages["coarse"].yaw == 30.0
    assert configured("ffhq", presets=["hfgi3d"]).stages["coarse"].yaw == 20.0
    assert configured("cats", presets=["fidelity"]).stages["coarse"].yaw == 25.0
    assert configured("ffhq", "coarse.yaw=12").stages["coarse"].yaw == 12.0


# --- the numbers arrive


CHANGES = {
    "radius": 3.0,
    "pivot": (0.0, 0.1, 0.0),
    "focal": 4.0,
    "near": 2.0,
    "far": 3.5,
    "background": 0.5,
    "has_alpha": False,
    "full_head": False,
    "plane_convention": "eg3d",
    "conditioning_yaw": 30.0,
    "conditioning_pitch": -10.0,
}


def test_every_setting_reaches_the_specification(tiny_generator):
    assert CHANGES.keys() >= set(SETTINGS)
    before = tiny_generator.spec
    changed = with_settings(tiny_generator, CHANGES)
    degrees = {k: v for k, v in CHANGES.items() if k.startswith("conditioning")}
    for name, value in CHANGES.items():
        expected = math.radians(value) if name in degrees else value
        assert getattr(changed.spec, name) == expected != getattr(before, name), name
    assert tiny_generator.spec is before, "the caller's generator stays as it is"
    assert changed.decoder is tiny_generator.decoder, "and its weights are shared"
    assert with_settings(tiny_generator, dict.fromkeys(SETTINGS)) is tiny_generator


def test_depth_range_and_background_change_the_picture(tiny_generator):
    w = tiny_generator.mean_w(8)
    planes, camera = tiny_generator.planes(w), tiny_generator.spec.orbit(0.0, 0.0)

    def corner(**settings) -> float:
        return with_settings(tiny_generator, settings).render(planes, w, camera).raw[0, :, 0, 0].mean().item()

    assert corner(background=1.0) > corner(background=-1.0) + 0.1
    near = with_settings(tiny_generator, {"near": 0.5, "far": 0.6}).render(planes, w, camera)
    assert near.depth.max() < 0.7 < 2.0 < tiny_generator.render(planes, w, camera).depth.min()


def test_the_conditioning_camera_is_told_to_the_mapping(tiny_generator):
    turned = with_settings(tiny_generator, {"conditioning_yaw": 90.0})
    expected = tiny_generator.spec.orbit(math.pi / 2, 0.0)
    assert torch.allclose(turned.spec.canonical_camera.cam2world, expected.cam2world, atol=1e-6)
    conditional = with_settings(tiny_generator, {})
    conditional.config = replace(tiny_generator.config, zero_conditioning=False)
    try:
        turned.config = conditional.config
        assert not torch.allclose(turned.sample_w(4, 0), conditional.sample_w(4, 0))
    finally:
        tiny_generator.config = replace(tiny_generator.config, zero_conditioning=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"radius": 0.0}, "generator.radius: must be positive"),
        ({"focal": -1.0}, "generator.focal: must be positive"),
        ({"near": 3.0, "far": 2.0}, "generator.near: 3 must be smaller than generator.far"),
    ],
)
def test_numbers_that_no_camera_can_have(tiny_generator, settings, message):
    with pytest.raises(InputError, match=message):
        with_settings(tiny_generator, settings)


@pytest.mark.parametrize("domain", DOMAINS)
def test_pseudo_views_and_turntable_stay_in_the_domains_range(tiny_generator, domain):
    config = configured(domain)
    spec = with_settings(tiny_generator, plain(config.generator)).spec
    coarse, evaluate = config.stages["coarse"], config.stages["evaluate"]
    yaw, pitch = pseudo_cameras(spec, spec.orbit(0.0, 0.0), coarse).yaw_pitch(spec.pivot)
    assert len(yaw) == coarse.views + (coarse.around if spec.full_head else 0)
    ring = yaw[: coarse.views].rad2deg().abs().max().item()
    assert 0.95 * coarse.yaw < ring <= coarse.yaw + 1e-2
    assert pitch.rad2deg().max().item() <= coarse.pitch_up + 1e-2
    turn = turntable(spec, evaluate).yaw_pitch(spec.pivot)[0].rad2deg().abs().max().item()
    assert turn == pytest.approx(180.0 if spec.full_head else evaluate.turntable_yaw, abs=3.0)


# --- a run


@pytest.fixture
def work(tmp_path: Path, monkeypatch) -> Path:
    """A photo, and runs that stop before the first stage."""
    write_png(tmp_path / "photo.png", torch.zeros(1, 3, 8, 8))
    monkeypatch.setattr(Runner, "run", lambda self, first, until: self.folder.write_config(self.config.as_yaml()))
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path


def saved(run: Path) -> dict:
    return yaml.safe_load((run / "config.yaml").read_text())


def test_a_run_keeps_its_domain_and_its_numbers(work: Path, tiny_generator, monkeypatch):
    run = work / "run"
    other = with_settings(tiny_generator, {"full_head": False, "pivot": (0.0, 0.0, -0.06), "radius": 2.8})
    loaded = {"tiny.pkl": tiny_generator, "cats.pkl": other}
    monkeypatch.setattr(invert_module, "load_generator", lambda name, device: loaded[Path(name).name])
    for name in loaded:
        (work / name).write_bytes(name.encode())

    def go(*settings: str, **more) -> dict:
        invert(Request(settings=settings), out=run if "resume" not in more else None, **more)
        return saved(run)

    first = go(f"run.generator={work / 'tiny.pkl'}", "run.device=cpu", image=work / "photo.png")
    assert first["run"]["domain"] == "heads" and first["generator"]["radius"] == 2.7
    assert first["generator"]["background"] == tiny_generator.spec.background
    before = file_hash(run / "config.yaml")
    go(resume=run)
    assert file_hash(run / "config.yaml") == before
    assert go("generator.radius=3", resume=run)["generator"]["radius"] == 3.0
    assert go(resume=run)["generator"]["radius"] == 3.0
    # a perceptual network is found again from another folder, too
    (work / "features.safetensors").write_bytes(b"weights")
    monkeypatch.chdir(work)
    kept = go("run.perceptual=features.safetensors", resume=run)["run"]["perceptual"]
    assert kept == str((work / "features.safetensors").resolve())
    # another domain, another generator: their numbers replace the old ones
    named = go("run.domain=ffhq", resume=run)
    assert named["generator"]["pivot"] == [0.0, 0.0, 0.2] and named["coarse"]["yaw"] == 30.0
    changed = go(f"run.generator={work / 'cats.pkl'}", resume=run)
    assert changed["run"]["domain"] == "cats"
    assert changed["generator"]["radius"] == 2.8 and changed["coarse"]["yaw"] == 25.0
    with pytest.raises(InputError, match="there are auto, cars"):
        go("run.domain=dogs", resume=run)
