"""Packs of balls at the origin, for trainers that should not wait for heads."""

import numpy as np
import torch

from pmv.geometry.camera import Camera
from pmv.training.data import HeadPack, half_depth


def draw_balls(pack: HeadPack) -> HeadPack:
    """Fills a pack: a ball's latent is its radius and colour; colour, alpha and depth are exact."""
    size = pack.layout.resolution
    for slot in range(pack.layout.heads):
        z = np.random.default_rng([slot, pack.layout.first_seed]).uniform(-1, 1, 4).astype(np.float32)
        cameras = Camera.from_labels(torch.from_numpy(np.array(pack.cameras[slot])))
        origins, directions = cameras.rays(size)
        a, b = directions.square().sum(-1), (origins * directions).sum(-1)
        root = b.square() - a * (origins.square().sum(-1) - (0.22 + 0.05 * z[0]) ** 2)
        depth = torch.where(root > 0, (-b - root.clamp_min(0).sqrt()) / a, 0.0).reshape(-1, size, size)
        for view in range(pack.layout.views):
            pack.rgb[slot, view] = (0.5 + 0.4 * z[1:]) * 255
            pack.alpha[slot, view] = (depth[view] > 0).numpy() * 255
            pack.depth[slot, view] = half_depth(depth[view].numpy())
        pack.z[slot] = z
        pack.ready[slot] = 1
    return pack
