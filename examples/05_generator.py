"""The 3D GAN alone: latents, planes, cameras, depth and density. Needs no run."""

import argparse
import math
from pathlib import Path

import torch

import pmv
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--generator", default="heads")
parser.add_argument("--out", type=Path, default=Path("runs/examples"))
given = parser.parse_args()
given.out.mkdir(parents=True, exist_ok=True)

# "heads" ships with pmv; a name of `pmv fetch`, or the path of an official .pkl (read, never executed), works the same
# way.
generator = pmv.load_generator(given.generator)
spec = generator.spec
print(f"{spec.family}, {spec.resolution}² pixels, w of {spec.num_ws} x {spec.w_dim}, box of {spec.box:g} units")

with torch.no_grad():
    # Three heads: z is Gaussian, w what the mapping makes of it, told of a camera. Truncation draws w towards the mean.
    z = torch.randn(3, spec.z_dim, generator=torch.Generator().manual_seed(1))
    w = generator.map(z, spec.canonical_camera.expand(3), truncation=0.7)  # [3,num_ws,w_dim]

    # One pass of the backbone for all three; then any number of cameras. Row k is head k from four sides.
    planes = generator.planes(w)
    rows = []
    for yaw in (-40, 0, 40, 90):
        cameras = spec.orbit(math.radians(yaw), 0.0).expand(3)
        rows.append(to_uint8(generator.render(planes, w, cameras).image))
    write_png(given.out / "05_heads.png", tile([column[k] for k in range(3) for column in rows], columns=4))

    # Depth is z-depth in the camera's frame, in world units, alpha the opacity of the ray; both at the resolution at
    # which rays are marched, which can be chosen. Rendering is deterministic.
    view = generator.render(planes[:1], w[:1], spec.orbit(0.0, 0.0), resolution=64)
    solid = view.alpha > 0.5
    if solid.any():
        print(f"nearest point of the first head: {view.depth[solid].min():.2f} units from the camera")

    # The volume itself, at points of the world: y up, the face looks along +z.
    points = 0.45 * spec.box * torch.linspace(-1, 1, 9)[None, :, None] * torch.tensor([0.0, 0.0, 1.0])
    density, _ = generator.density(points, planes[:1])
    print("density along z through the first head:", [f"{value:.1f}" for value in density.flatten().tolist()])

# Cameras are EG3D's 25 numbers, and can be read from and written to the formats of nerfstudio and COLMAP as well.
cameras = spec.orbit(torch.linspace(-0.5, 0.5, 3), torch.zeros(3))
cameras.save(given.out / "05_cameras.json", image_names=["left.png", "front.png", "right.png"])
again = pmv.Camera.load(given.out / "05_cameras.json", image_name="front.png")
assert torch.allclose(again.labels(), cameras[1].labels())
print(f"{given.out / '05_heads.png'}: three heads; {given.out / '05_cameras.json'}: three cameras")
