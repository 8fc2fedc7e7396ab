"""HFGI3D's schedule (Xie et al., CVPR 2023): the preset of that name, with what the embedded generator needs beside it.

The preset measures its latent by perceptual features alone, as the released code does with VGG16's.
"""

from benchmarks.quality.methods.base import PipelineMethod

HFGI3D = PipelineMethod(
    "HFGI3D",
    "its released schedule, with squared differences in the latent and a plain background",
    settings=("run.perceptual=lpips-random-squeeze", "prepare.composite=auto", "latent.l2_weight=1.0"),
    presets=("hfgi3d",),
)
