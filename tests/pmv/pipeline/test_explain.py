"""A setting's explanation lives once, in the dataclass that reads it."""

from dataclasses import dataclass

import pytest

from pmv.pipeline.config import RunConfig
from pmv.pipeline.explain import explained, settings_docs
from pmv.stages.table import TABLE
from tests.conftest import ROOT


def test_base_yaml_says_what_the_dataclasses_say(write: bool):
    """After a change there: pytest tests/pmv/pipeline/test_explain.py --write"""
    path = ROOT / "configs" / "base.yaml"
    text = path.read_text(encoding="utf-8")
    wanted = explained(text, TABLE)
    if write:
        path.write_text(wanted, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == wanted


def test_comments_come_anew_and_values_stay():
    text = "# kept\n\nrun:\n  # wrong\n  seed: 7  # kept\n\n  device: cpu\n"
    assert explained(text, TABLE) == (
        "# kept\n\nrun:\n  # seed of every random number that the run draws. (from 0 to 9223372036854775807)\n"
        "  seed: 7  # kept\n\n"
        '  # "cpu", "cuda", or "auto" (cuda where there is one).\n  device: cpu\n'
    )


def test_a_setting_without_explanation_is_refused():
    @dataclass(frozen=True)
    class Half(RunConfig):
        """
        Attributes:
            depth, height: two of them.
        """

        depth: int
        more: int

    with pytest.raises(ValueError, match="more"):
        settings_docs(Half)
    assert settings_docs(RunConfig)["seed",] == "seed of every random number that the run draws."
