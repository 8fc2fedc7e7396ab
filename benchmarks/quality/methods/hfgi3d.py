"""HFGI3D's schedule (Xie et al., CVPR 2023): the preset of that name, with what the embedded generator needs beside it.

The released code measures by trained networks, VGG16 in the latent and AlexNet in tuning. A distance with random
weights cannot stand in for them alone: with L2 at the weight that the other methods give it, the schedule ends 2.5 dB
nearer to the photo and 1.1 dB nearer to the truth at ±30° (benchmarks/README.md).
"""

from benchmarks.quality.methods.base import PipelineMethod

_L2 = tuple(f"{stage}.l2_weight=10.0" for stage in ("latent", "coarse", "tune"))

HFGI3D = PipelineMethod(
    "HFGI3D",
    "its released schedule, with squared differences beside a random perceptual distance, and a plain background",
    settings=("run.perceptual=lpips-random-squeeze", "prepare.composite=auto", *_L2),
    presets=("hfgi3d",),
)
