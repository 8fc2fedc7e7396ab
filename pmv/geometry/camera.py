"""Pinhole cameras in the project's one convention (docs/conventions.md).

World: y up, the face looks along +z. Camera: OpenCV axes (+x right, +y down, +z forward), `cam2world` matrices.
Intrinsics are normalised by the image width, so that one camera serves every resolution. Depth is z-depth: the
distance along the camera's +z axis, not the length of the ray. Reading and writing of camera files is in
`pmv/geometry/camera_io.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pmv.errors import InputError
from pmv.geometry.camera_doubt import camera_doubt
from pmv.geometry.camera_io import read_cameras, write_cameras

EG3D_FOCAL = 4.2647
"""Focal length of EG3D's FFHQ cameras in image widths (NVlabs/eg3d, dataset preprocessing)."""
EG3D_RADIUS = 2.7
"""Distance of EG3D's FFHQ cameras from the point they look at, in world units."""
LABEL = 25
"""Numbers of an EG3D camera label: 16 of cam2world, 9 of the intrinsics."""


@dataclass(frozen=True)
class Camera:
    """A batch of N pinhole cameras.

    Attributes:
        cam2world: [N,4,4] camera-to-world matrices, OpenCV axes.
        intrinsics: [N,3,3] normalised by the image width: a point (x, y, z) of the camera frame is seen at u = fx·x/z
            + cx, v = fy·y/z + cy, where (0,0) is the top left and (1,1) the bottom right corner of a square image.
    """

    cam2world: Tensor
    intrinsics: Tensor

    def __post_init__(self) -> None:
        n = self.cam2world.shape[0]
        if self.cam2world.shape != (n, 4, 4) or self.intrinsics.shape != (n, 3, 3):
            raise ValueError(
                f"a camera wants cam2world [N,4,4] and intrinsics [N,3,3], "
                f"got {tuple(self.cam2world.shape)} and {tuple(self.intrinsics.shape)}"
            )

    @classmethod
    def from_labels(cls, labels: Tensor) -> "Camera":
        """Cameras from EG3D labels [N,25]: 16 numbers of cam2world row by row, then 9 of the intrinsics."""
        if labels.ndim != 2 or labels.shape[1] != 25:
            raise InputError(f"a camera label has 25 numbers, got an array of shape {tuple(labels.shape)}")
        return cls(labels[:, :16].reshape(-1, 4, 4), labels[:, 16:].reshape(-1, 3, 3))

    def labels(self) -> Tensor:
        """EG3D labels [N,25]; the inverse of `from_labels`."""
        return torch.cat([self.cam2world.flatten(1), self.intrinsics.flatten(1)], 1)

    @classmethod
    def orbit(
        cls,
        yaw: float | Tensor,
        pitch: float | Tensor,
        radius: float | Tensor = EG3D_RADIUS,
        pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0),
        focal: float | Tensor = EG3D_FOCAL,
        roll: float | Tensor = 0.0,
    ) -> "Camera":
        """Cameras on a sphere around `pivot` that look at it. Differentiable in every tensor argument.

        Args:
            yaw: radians, scalar or [N]; 0 is in front of the face, positive moves the camera towards +x.
            pitch: radians, scalar or [N]; positive moves the camera up (+y).
            radius: world units, scalar or [N].
            pivot: the point looked at: [3] or [N,3].
            focal: focal length in image widths, scalar or [N].
            roll: radians, scalar or [N]; positive turns the camera clockwise about its viewing axis, so the picture
                turns counter-clockwise.
        """
        device = next((a.device for a in (yaw, pitch, radius, focal, roll, pivot) if isinstance(a, Tensor)), None)

        def tensor(a) -> Tensor:
            return torch.as_tensor(a, dtype=torch.float32, device=device)

        y, p, r, f, turn = torch.broadcast_tensors(*(tensor(a).reshape(-1) for a in (yaw, pitch, radius, focal, roll)))
        sy, cy, sp, cp = y.sin(), y.cos(), p.sin(), p.cos()
        backward = torch.stack([sy * cp, sp, cy * cp], -1)  # from the pivot to the camera
        right = torch.stack([cy, torch.zeros_like(cy), -sy], -1)
        down = torch.stack([sy * sp, -cp, cy * sp], -1)
        sr, cr = turn.sin()[:, None], turn.cos()[:, None]
        right, down = cr * right + sr * down, cr * down - sr * right
        position = tensor(pivot).reshape(-1, 3) + r[:, None] * backward
        top = torch.stack([right, down, -backward, position], -1)
        bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(len(top), 1, 4)
        zero, half, one = torch.zeros_like(f), torch.full_like(f, 0.5), torch.ones_like(f)
        intrinsics = torch.stack([f, zero, half, zero, f, half, zero, zero, one], -1).reshape(-1, 3, 3)
        return cls(torch.cat([top, bottom], 1), intrinsics)

    @classmethod
    def cat(cls, cameras: Sequence["Camera"]) -> "Camera":
        """All cameras of a sequence in one batch."""
        return cls(torch.cat([c.cam2world for c in cameras]), torch.cat([c.intrinsics for c in cameras]))

    def __len__(self) -> int:
        return self.cam2world.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> "Camera":
        """A sub-batch; an integer gives a batch of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"camera {index} of {len(self)}")
            index = slice(index, index + 1 if index != -1 else None)
        return Camera(self.cam2world[index], self.intrinsics[index])

    def to(self, *args, **kwargs) -> "Camera":
        """As `Tensor.to`, on both matrices."""
        return Camera(self.cam2world.to(*args, **kwargs), self.intrinsics.to(*args, **kwargs))

    def detach(self) -> "Camera":
        return Camera(self.cam2world.detach(), self.intrinsics.detach())

    def expand(self, n: int) -> "Camera":
        """The one camera of this batch, n times; a batch of n is returned as it is."""
        return self if len(self) == n else Camera(self.cam2world.expand(n, 4, 4), self.intrinsics.expand(n, 3, 3))

    @property
    def position(self) -> Tensor:
        """[N,3] camera centres in the world."""
        return self.cam2world[:, :3, 3]

    @property
    def forward(self) -> Tensor:
        """[N,3] unit viewing axes in the world."""
        return self.cam2world[:, :3, 2]

    def pixel_directions(self, height: int, width: int | None = None) -> Tensor:
        """[N,H*W,3] camera-frame directions with z = 1 through the pixel centres, row by row."""
        width = height if width is None else width
        like = self.intrinsics
        u = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
        # v too is measured in image widths' own unit square: EG3D's images are square, and so are ours
        v = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
        grid = torch.stack(
            [u.expand(height, -1), v[:, None].expand(-1, width), torch.ones_like(u).expand(height, -1)], -1
        )
        # the inverse of an upper-triangular K, written out so that gradients to the intrinsics stay well-behaved
        fx, skew, cx = like[:, 0, 0], like[:, 0, 1], like[:, 0, 2]
        fy, cy = like[:, 1, 1], like[:, 1, 2]
        y = (grid[None, ..., 1] - cy[:, None, None]) / fy[:, None, None]
        x = (grid[None, ..., 0] - cx[:, None, None] - skew[:, None, None] * y) / fx[:, None, None]
        return torch.stack([x, y, torch.ones_like(x)], -1).flatten(1, 2)

    def rays(self, height: int, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Rays through the pixel centres: origins [N,H*W,3] and directions [N,H*W,3].

        The directions are not normalised: their camera-frame z is 1, so `origin + t·direction` has z-depth t.
        """
        directions = self.pixel_directions(height, width) @ self.cam2world[:, :3, :3].transpose(1, 2)
        return self.position[:, None].expand_as(directions), directions

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """World points [N,P,3] → uv [N,P,2] in the unit square (u right, v down) and z-depth [N,P].

        Points at z ≤ 0 lie behind the camera; their uv is meaningless and the caller must mask them by z.
        """
        local = (points - self.position[:, None]) @ self.cam2world[:, :3, :3]
        z = local[..., 2]
        safe = torch.where(z.abs() < 1e-8, torch.full_like(z, 1e-8), z)
        uvw = (local / safe[..., None]) @ self.intrinsics.transpose(1, 2)
        return uvw[..., :2], z

    def unproject(self, depth: Tensor) -> Tensor:
        """z-depth maps [N,1,H,W] → world points [N,H,W,3] at the pixel centres."""
        n, _, height, width = depth.shape
        origins, directions = self.expand(n).rays(height, width)
        return (origins + depth.reshape(n, -1, 1) * directions).reshape(n, height, width, 3)

    def yaw_pitch(self, pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0)) -> tuple[Tensor, Tensor]:
        """Yaw and pitch [N] in radians of the camera's place as seen from `pivot`; the inverse of `orbit` for cameras
        that look at it."""
        offset = self.position - torch.as_tensor(
            pivot, dtype=self.cam2world.dtype, device=self.cam2world.device
        ).reshape(-1, 3)
        yaw = torch.atan2(offset[:, 0], offset[:, 2])
        return yaw, torch.atan2(offset[:, 1], offset[:, [0, 2]].norm(dim=1))

    def turned(self, yaw: float, pitch: float, pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0)) -> "Camera":
        """The cameras moved around `pivot` by yaw and pitch (radians), keeping their distance, their roll and where
        they look past the pivot; zero changes nothing."""
        if yaw == 0 and pitch == 0:
            return self
        yaw_now, pitch_now = self.yaw_pitch(pivot)
        here = Camera.orbit(yaw_now, pitch_now, pivot=pivot)
        there = Camera.orbit(yaw_now + yaw, pitch_now + pitch, pivot=pivot)
        turn = there.cam2world[:, :3, :3] @ here.cam2world[:, :3, :3].transpose(1, 2)
        centre = torch.as_tensor(pivot, dtype=self.position.dtype, device=self.position.device)
        cam2world = self.cam2world.clone()
        cam2world[:, :3, :3] = turn @ self.cam2world[:, :3, :3]
        cam2world[:, :3, 3] = ((turn @ (self.position - centre)[..., None])[..., 0]) + centre
        return Camera(cam2world, self.intrinsics)

    def adjusted(self, turn: Tensor, shift: Tensor, pivot: Sequence[float] | Tensor = (0.0, 0.0, 0.0)) -> "Camera":
        """Cameras turned about a point of the world and then shifted in their own frames; zero turn and shift change
        nothing. Differentiable.

        Args:
            turn: [N,3] axis-angle vectors in radians, world axes.
            shift: [N,3] world units along the cameras' axes.
            pivot: the point that keeps its place.
        """
        zero = torch.zeros_like(turn[:, 0])
        x, y, z = turn.unbind(1)
        skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
        # matrix_exp asks a GPU how many terms it needs, and waits for the answer
        rotation = rotation_of(turn, skew) if turn.is_cuda else torch.linalg.matrix_exp(skew)
        centre = torch.as_tensor(pivot, dtype=turn.dtype, device=turn.device)
        axes = rotation @ self.cam2world[:, :3, :3]
        position = ((self.position - centre)[:, None] @ rotation.mT)[:, 0] + centre + (axes @ shift[..., None])[..., 0]
        top = torch.cat([axes, position[:, :, None]], 2)
        return Camera(torch.cat([top, self.cam2world[:, 3:]], 1), self.intrinsics)

    def relative_to(self, here: "Camera", there: "Camera") -> "Camera":
        """These cameras moved rigidly as one camera is moved to another: what they see of a thing that stands before
        `there` as another does before `here`.

        Args:
            here, there: 1, or as many.
        """
        moved = there.cam2world @ torch.linalg.inv(here.cam2world) @ self.cam2world
        return Camera(moved, self.intrinsics)

    def angle_to(self, other: "Camera") -> Tensor:
        """Angle in radians [N] between the viewing axes of two batches of cameras (either may have length 1)."""
        cosine = (self.forward * other.forward).sum(-1).clamp(-1.0, 1.0)
        return torch.acos(cosine)

    def validate(self, source: str) -> "Camera":
        """Returns itself where its numbers can be a camera's whatever it looks at; see `camera_doubt`.

        Raises:
            InputError: they cannot; the message names `source` and what they look like.
        """
        doubt = camera_doubt(self.cam2world, self.intrinsics)
        if doubt:
            raise InputError(f"{source}: {doubt}")
        return self

    @classmethod
    def load(cls, path: str | Path, image_name: str | None = None, picture: tuple[int, int] | None = None) -> "Camera":
        """Cameras from an EG3D `dataset.json`, a `.npy` of 25 floats, a nerfstudio `transforms.json` or a COLMAP text
        folder; docs/inputs.md lists the variants.

        Args:
            path: the file or folder.
            image_name: pick the one camera of this image where the file lists several; a whole path tells apart images
                whose files are called alike.
            picture: width and height in pixels of that image: a camera that says it is of another shape is refused.

        Raises:
            InputError: missing, unreadable, invalid or ambiguous; the message names the file.
        """
        return cls(*read_cameras(Path(path), image_name, picture)).validate(str(path))

    def save(self, path: str | Path, image_names: Sequence[str] | None = None, resolution: int = 512) -> None:
        """Writes the format that the name asks for: `transforms.json` (nerfstudio), any other `.json` (EG3D labels),
        `.npy`, or a folder (COLMAP text, whose intrinsics are in pixels of a `resolution`² image)."""
        write_cameras(Path(path), self.cam2world, self.intrinsics, image_names, resolution)


def rotation_of(turn: Tensor, skew: Tensor) -> Tensor:
    """Rotations [N,3,3] of axis-angle vectors [N,3] in radians whose cross-product matrices are skew [N,3,3]
    (Rodrigues); differentiable everywhere, also at no turn."""
    square = turn.square().sum(1)[:, None, None]
    small = square < 1e-2
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sine = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), angle.sin() / angle)
    cosine = torch.where(
        small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)), (1 - angle.cos()) / angle.square()
    )
    return torch.eye(3, dtype=turn.dtype, device=turn.device) + sine * skew + cosine * (skew @ skew)
