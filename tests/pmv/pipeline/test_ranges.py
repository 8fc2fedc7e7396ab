"""Every number of a config has bounds, which hold before the first stage."""

import functools
import re
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from pmv import data_path
from pmv.errors import InputError
from pmv.generators import EG3DGenerator, PanoHeadGenerator
from pmv.generators.settings import with_settings
from pmv.pipeline.config import Config, GeneratorConfig, RunConfig, load_config
from pmv.pipeline.explain import settings_ranges
from pmv.pipeline.ranges import Range
from pmv.pipeline.table import Stage
from pmv.stages.table import TABLE
from tests.inputs_table import check_section

CLASSES: dict[str, Any] = {"run": RunConfig, "generator": GeneratorConfig, **{s.name: s.config for s in TABLE}}

# kind, setting, what is said
SETTINGS = [
    ("steps and rates", "tune.steps=-5", "tune.steps is from 0 to 1000000, not -5"),
    ("steps and rates", "latent.steps=10000000", "from 0 to 1000000"),
    ("steps and rates", "latent.learning_rate=-1", "latent.learning_rate is from 0 to 10, not -1.0"),
    ("steps and rates", "coarse.learning_rate=.inf", "is a number"),
    ("steps and rates", "tune.learning_rate=.nan", "is a number"),
    ("steps and rates", "tune.ramp_up=2", "tune.ramp_up is from 0 to 1"),
    ("steps and rates", "retune.ramp_down=-0.5", "from 0 to 1"),
    ("steps and rates", "latent.w_noise_until=1.5", "from 0 to 1"),
    ("steps and rates", "prepare.refine_steps=-1", "from 0 to 1000"),
    ("counts and sizes", "coarse.views=-1", "coarse.views is from 0 to 1000"),
    ("counts and sizes", "coarse.rings=0", "from 1 to 100"),
    ("counts and sizes", "latent.mean_samples=1", "from 2 to 1000000"),
    ("counts and sizes", "evaluate.mesh_resolution=1", "evaluate.mesh_resolution is 0, or from 2 to 1024, not 1"),
    ("counts and sizes", "evaluate.mesh_resolution=100000", "0, or from 2 to 1024"),
    ("counts and sizes", "evaluate.fps=-3", "evaluate.fps is from 1 to 240"),
    ("counts and sizes", "evaluate.fps=0", "from 1 to 240"),
    ("counts and sizes", "prepare.resolution=100000", "prepare.resolution is from 16 to 4096"),
    ("counts and sizes", "prepare.resolution=0", "from 16 to 4096"),
    ("counts and sizes", "prepare.face=0", "from 1 to 10000"),
    ("counts and sizes", "coarse.depth_resolution=0", "from 8 to 2048"),
    ("counts and sizes", "prepare.search_keep=0", "from 1 to 100"),
    ("counts and sizes", "run.seed=-1", "from 0 to 9223372036854775807"),
    ("angles and lengths", "visibility.max_angle=200", "visibility.max_angle is from 0 to 90"),
    ("angles and lengths", "coarse.pitch_up=90", "from 0 to 89"),
    ("angles and lengths", "coarse.yaw=-40", "from 0 to 180"),
    ("angles and lengths", "prepare.prior_yaw=0", "above 0, at most 1000"),
    ("angles and lengths", "visibility.tolerance=-0.1", "from 0 to 1"),
    ("angles and lengths", "inpaint.feather=7", "from 0 to 0.5"),
    ("angles and lengths", "generator.radius=0", "above 0, at most 1000"),
    ("angles and lengths", "generator.pivot=[0, 0, .inf]", "is a number"),
    ("angles and lengths", "generator.pivot=[0, 0, 1e9]", "from -1000 to 1000"),
    ("angles and lengths", "tune.hold_scale=0", "above 0, at most 1000"),
    ("weights", "tune.l2_weight=-1", "from 0 to 1000000"),
    ("weights", "tune.l2_weight=1e30", "from 0 to 1000000"),
    ("weights", "latent.camera_weight=.nan", "is a number"),
    ("weights", "tune.occluded_weight=-0.01", "from 0 to 1000000"),
    ("weights", "prepare.prior_weight=-.inf", "is a number"),
    ("weights", "retune.edit_weight=-4", "from 0 to 1000000"),
    ("weights", "visibility.confidence_least=1.2", "from 0 to 1"),
    ("weights", "latent.difference_most=-1", "from 0 to 1"),
]
# setting, what is said by the stage that reads it, before the first runs
TOGETHER = [
    ("tune.groups=[foo]", "tune.groups: no parameter group 'foo'"),
    ("coarse.groups=[all, Decoder]", "coarse.groups: no parameter group 'Decoder'"),
    ("retune.groups=[]", "retune.groups is empty; name what is tuned"),
    ("tune.groups=[all, residual]", "the residual is tuned by tune.residual_rate"),
    ("prepare.matte=magic", "no matte is called 'magic'"),
]


@functools.cache
def refusal(setting: str) -> str:
    with pytest.raises(InputError) as caught:
        load_config(TABLE, settings=[setting])
    return str(caught.value)


def checked(config: Config, generator: Any) -> None:
    for stage in TABLE:
        stage.check(config.stages[stage.name], generator)


@pytest.mark.parametrize("kind, setting, told", SETTINGS, ids=[row[1] for row in SETTINGS])
def test_numbers_beyond_their_range(kind: str, setting: str, told: str):
    message = refusal(setting)
    assert setting.split("=")[0] in message and told in message and len(message.splitlines()) == 1


@pytest.mark.parametrize("setting, told", TOGETHER, ids=[row[0] for row in TOGETHER])
def test_what_a_stage_cannot_do_is_told_before_the_first(setting: str, told: str, tiny_generator: EG3DGenerator):
    config = load_config(TABLE, settings=[setting])
    with pytest.raises(InputError, match=re.escape(told)):
        checked(config, tiny_generator)


def test_a_full_head_may_have_its_views_all_around(tiny_generator: EG3DGenerator):
    full, front = (with_settings(tiny_generator, {"full_head": full}) for full in (True, False))
    checked(load_config(TABLE, settings=["coarse.views=0"]), full)
    for generator, settings in ((full, ["coarse.views=0", "coarse.around=0"]), (front, ["coarse.views=0"])):
        with pytest.raises(InputError, match="nothing to tune to"):
            checked(load_config(TABLE, settings=settings), generator)


def test_every_number_has_a_range():
    def numbers(hint: Any, bounded: bool = False) -> list[bool]:
        if hint in (int, float):
            return [bounded]
        bounded = bounded or any(isinstance(note, Range) for note in getattr(hint, "__metadata__", ()))
        inner = get_args(hint)[:1] if get_origin(hint) is not None and hasattr(hint, "__metadata__") else get_args(hint)
        return [found for one in inner for found in numbers(one, bounded)]

    for name, config in CLASSES.items():
        for key, hint in get_type_hints(config, include_extras=True).items():
            assert all(numbers(hint)), f"{name}.{key} has no range"


@pytest.mark.parametrize("preset", ["demo", "fidelity", "hfgi3d"])
def test_what_ships_lies_within(preset: str, tiny_panohead: PanoHeadGenerator):
    checked(load_config(TABLE, [preset]), tiny_panohead)
    for domain in data_path("configs", "generators").glob("*.yaml"):
        load_config(TABLE, [str(domain), preset])


def test_the_ends_of_a_range():
    part, above, mesh = Range(0, 1), Range(0, 10, above=True), Range(2, 8, or_zero=True)
    assert 0 in part and 1 in part and -1e-9 not in part and 1.1 not in part
    assert 0 not in above and 1e-9 in above and 10 in above
    assert 0 in mesh and 1 not in mesh and 2 in mesh
    assert not any(float(text) in one for text in ("nan", "inf", "-inf") for one in (part, above, mesh))
    assert settings_ranges(Stage(1, "evaluate", "pmv.stages.evaluate").config)["fps"] == "from 1 to 240"


def test_the_page_tells_every_setting(tiny_generator: EG3DGenerator, write: bool):
    rows = [(kind, f"`--set {setting}`", refusal(setting)) for kind, setting, _ in SETTINGS]
    for setting, _ in TOGETHER:
        with pytest.raises(InputError) as caught:
            checked(load_config(TABLE, settings=[setting]), tiny_generator)
        rows.append(("together with the generator", f"`--set {setting}`", str(caught.value)))
    check_section("settings", [(kind, given, seen.split(": ", 1)[-1]) for kind, given, seen in rows], write)
