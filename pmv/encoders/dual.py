"""Both encoders together, their stitch, and the file that they lie in; or the first alone.

What the picture shows comes from the first, everything else from the second (arXiv:2409.20530, eq. 4). The latent of
the whole is the first's, which styles super-resolution: it keeps the photo's tone. The stitch is one of planes, as in
the paper, so that the whole is a latent and a residual, which is what an inversion stores and everything after takes;
`stitched_field` is the other one, by point, for rendering alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import torch
import torch.nn.functional as F
from msgspec import Meta
from torch import Tensor, nn

from pmv.encoders.lifting import texel_points
from pmv.encoders.network import Encoded, Encoder, EncoderShape
from pmv.encoders.occlusion import StitchedField, visible_texels
from pmv.encoders.official import OfficialEncoder
from pmv.errors import CheckpointError, InputError
from pmv.files.artifacts import load_tensors, read_header, save_tensors, tensors_hash
from pmv.files.reading import fitted
from pmv.generators.base import Generator
from pmv.geometry.camera import Camera
from pmv.pictures.masks import SOLID, feather

SEAM = 0.02
"""World units, or parts of a plane's width, over which one part goes over into the other."""
_TEXELS = 64
"""A side of the planes on which visibility is found; three of them have 0.8 million points."""
_FORMAT = "pmv-encoders-1"
_NAMES = ("visible", "whole")


Half = Encoder | OfficialEncoder
"""One encoder of either size."""


@dataclass(frozen=True)
class Stitched:
    """A head in one forward pass.

    Attributes:
        w: [N,num_ws,w_dim], the first encoder's. planes: [N,3,C,H,W]. residual: what `planes` has beside the
            generator's planes of w.
        seen: [N,3,1,H,W] in [0,1], where `planes` are the first encoder's. camera: N, the given ones put right.
        visible, whole: both encoders' own; None = there is one encoder, and `planes` are all its own.
    """

    w: Tensor
    planes: Tensor
    residual: Tensor
    seen: Tensor
    camera: Camera
    visible: Encoded
    whole: Encoded | None


class DualEncoder(nn.Module):
    """Two encoders of one shape, or the first of them alone.

    Attributes:
        visible: right where the picture sees the head. whole: plausible everywhere; None = there is none.
    """

    def __init__(self, visible: Half, whole: Half | None = None) -> None:
        super().__init__()
        if whole is not None and visible.shape != whole.shape:
            raise ValueError("both encoders have one shape")
        self.visible, self.whole = visible, whole

    def only(self, name: str) -> "DualEncoder":
        """One of the two, "visible" or "whole", as an encoder of everything. InputError where there is no second."""
        encoder = getattr(self, name)
        if encoder is None:
            raise InputError(f"these encoders are one: there is no {name!r}")
        return DualEncoder(encoder).train(self.training)

    @torch.no_grad()
    def forward(self, generator: Generator, image: Tensor, foreground: Tensor, camera: Camera) -> Stitched:
        """See `Encoder.forward`."""
        first = self.visible(generator, image, foreground, camera)
        if self.whole is None:
            seen = torch.ones_like(first.planes[:, :, :1])
            return Stitched(first.w, first.planes, first.residual, seen, first.camera, first, None)
        second = self.whole(generator, image, foreground, camera)
        seen = seen_texels(generator, first)
        planes = torch.lerp(second.planes, first.planes, seen)
        return Stitched(first.w, planes, planes - (first.planes - first.residual), seen, first.camera, first, second)


@torch.no_grad()
def seen_texels(generator: Generator, first: Encoded, seam: float = SEAM) -> Tensor:
    """[N,3,1,H,W] in [0,1], of a tri-grid [N,3,1,D,H,W]: the texels that a picture sees of what the first encoder made
    of it.

    Args:
        seam: width of the soft border inside, in parts of the plane's; 0 = a sharp one, which is found on the device.
    """
    spec, size = generator.spec, first.planes.shape[-1]
    drawn = generator.render(first.planes, first.w, first.camera)
    # as many points along a texel's normal as it has neighbours, so that no surface falls between two of them
    points = texel_points(spec.plane_convention, spec.box, _TEXELS, _TEXELS).to(first.planes)
    solid = (drawn.alpha > SOLID).float()
    layers = first.planes.shape[3] if first.planes.ndim == 6 else 1
    visible = visible_texels(points, first.camera, drawn.depth, solid, 2 * spec.box / _TEXELS, layers)
    fine = F.interpolate(visible.flatten(0, 2)[:, None], (size, size), mode="bilinear", align_corners=False)
    seen = feather(fine, seam)[:, 0].unflatten(0, visible.shape[:3])
    return seen[:, :, None] if first.planes.ndim == 6 else seen


def stitched_field(generator: Generator, head: Stitched, index: int = 0) -> StitchedField:
    """The volume of one of the N heads, made by two encoders, stitched point by point, see `StitchedField`."""
    if head.whole is None:
        raise ValueError("there is nothing to stitch: the head is of one encoder")
    one, camera = slice(index, index + 1), head.camera[index]
    planes = head.visible.planes[one]
    drawn = generator.render(planes, head.visible.w[one], camera)
    solid = (drawn.alpha > SOLID).float()
    fields = generator.field(planes), generator.field(head.whole.planes[one])
    return StitchedField(*fields, camera, drawn.depth, solid, SEAM)


def save_encoders(path: Path, encoder: DualEncoder, generator: Generator, about: Mapping[str, Any]) -> None:
    """Writes both encoders, or the one that there is, in half precision.

    Args:
        generator: that they were trained on; its hash goes into the header. about: what else the header tells.

    Raises:
        ValueError: they are of the published kind, whose files are their authors' own.
    """
    if not isinstance(encoder.visible, Encoder):
        raise ValueError("encoders of the published kind are not written")
    parts = {name: part for name in _NAMES if (part := getattr(encoder, name)) is not None}
    tensors = {f"{name}.{k}": v.half() for name, part in parts.items() for k, v in part.state_dict().items()}
    header = {"format": _FORMAT, "encoders": list(parts), "shape": asdict(encoder.visible.shape), **about}
    save_tensors(path, tensors, header | {"generator_hash": tensors_hash(generator.state_dict())})


def made_for(path: Path, generator: Generator) -> bool:
    """Whether a file's encoders were trained on this generator. InputError where it holds none."""
    return _header(path)["generator_hash"] == tensors_hash(generator.state_dict())


def load_encoders(path: Path, generator: Generator) -> DualEncoder:
    """Reads what `save_encoders` wrote, ready for use, on the generator's device.

    Raises:
        InputError: the file is missing, or of another kind. CheckpointError: it is damaged, or was made for another
            generator.
    """
    header = _header(path)
    if not made_for(path, generator):
        raise CheckpointError(f"{path}: these encoders were trained on another generator; each needs its own")
    mean = generator.mean_w(1)
    tensors = load_tensors(path, mean.device)
    try:
        shape = EncoderShape.from_json(dict(header["shape"]))
        if shape.of_generator != EncoderShape.of(generator).of_generator:
            raise ValueError("made for other planes")
        parts = [
            _filled(shape, {k.removeprefix(f"{name}."): v for k, v in tensors.items() if k.startswith(f"{name}.")})
            for name in _NAMES[: len(header.get("encoders", _NAMES))]
        ]
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged, or of another version ({type(error).__name__})") from error
    return DualEncoder(*parts).eval().requires_grad_(False)


def _header(path: Path) -> "_Header":
    header = read_header(path)
    if header.get("format") != _FORMAT:
        raise InputError(f"{path}: holds no encoders of pmv")
    return fitted(header, _Header, path)


def _filled(shape: EncoderShape, state: Mapping[str, Tensor]) -> Encoder:
    """An encoder of weights from a file. What they do not fill is never given memory: its sizes are the file's own."""
    for name, value in state.items():
        if not value.is_floating_point() or not value.isfinite().all():
            raise ValueError(f"{name} has values that are no numbers")
    with torch.device("meta"):
        encoder = Encoder(shape, torch.zeros(1, shape.num_ws, shape.w_dim), 1.0, 1.0)
    encoder.load_state_dict({name: value.float() for name, value in state.items()}, assign=True)
    return encoder


_Width = Annotated[int, Meta(ge=1, le=4096)]
_Side = Annotated[int, Meta(ge=8, le=1024)]
_Widths = Annotated[list[_Width], Meta(min_length=1, max_length=8)]


class _Shape(TypedDict):
    num_ws: _Width
    w_dim: _Width
    planes: Annotated[list[_Width], Meta(min_length=4, max_length=4)]
    resolution: _Side
    widths: _Widths
    blocks: Annotated[list[Annotated[int, Meta(ge=0, le=64)]], Meta(min_length=1, max_length=8)]
    hidden: _Width
    pyramid: _Width
    detail: _Width
    plane_width: _Width
    # together with the planes' own sides, what a forward takes in memory
    lift_size: Annotated[int, Meta(ge=8, le=256)]
    lift_samples: Annotated[int, Meta(ge=1, le=128)]


class _Header(TypedDict):
    """What the header of a file of encoders must say."""

    format: str
    shape: _Shape
    generator_hash: str
    encoders: NotRequired[Annotated[list[Literal["visible", "whole"]], Meta(min_length=1, max_length=2)]]
