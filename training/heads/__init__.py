"""Synthetic heads made from MakeHuman's CC0 assets: true views, masks, depth and parameters from any camera.

assets = load_assets("makehuman/data")
head = build_head(assets, sample_parameters(seed=7))
renderer = HeadRenderer(resolution=256)
renderer.load(head)
view = renderer.render(cam2world, intrinsics)
"""

from pmv.training.heads.assets import HeadAssets
from pmv.training.heads.build import Head, build_head
from pmv.training.heads.compile import load_assets
from pmv.training.heads.parameters import HeadParameters, sample_parameters
from pmv.training.heads.renderer import HeadRenderer, HeadView

__all__ = [
    "Head",
    "HeadAssets",
    "HeadParameters",
    "HeadRenderer",
    "HeadView",
    "build_head",
    "load_assets",
    "sample_parameters",
]
