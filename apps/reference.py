"""`pmv edit --reference`: a part of one finished head put onto another, in a folder of its own.

Both heads are tuned generators, each with weights of its own, and a texel of a plane that faces the camera is shared by
the face and the hair behind it. So the two are mixed neither by texel nor by weight but as volumes, point by point, and
the residual of the first head's planes is then fitted to the mixture. Texels that the part does not reach stay to the
bit.
"""

import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pmv.apps.attributes import INVERSION, RECORD, RESIDUAL, SHEET, head_views, write_edit
from pmv.errors import InputError, shown
from pmv.files.artifacts import check_replaceable
from pmv.fitting.distil import fit_to_field, share_of_texels, touched_texels
from pmv.fitting.metrics import psnr
from pmv.generators.base import Field, GeneratorSpec
from pmv.generators.mixing import MixedField
from pmv.generators.views import render_planes
from pmv.geometry.camera import Camera
from pmv.inversion import Inversion, inversion_header, load_inversion
from pmv.pictures.images import resize
from pmv.pipeline.packing import load_fields
from pmv.portrait.crop import FRAMINGS
from pmv.portrait.head_parts import (
    HAIR,
    PARTS,
    MeanHead,
    PartVolume,
    SurfaceSamples,
    face_share,
    hair_share,
    mean_head,
    part_volume,
    skin_places,
)
from pmv.stages.domain import guess_domain
from pmv.stages.prepare import own_framing

SEAM = 0.008
"""Of the box's side: standard deviation of the soft border between both heads."""
_CLEARED = 0.8
"""Centimetres around the first head's hair that are taken away with it."""
_STEPS = 220
_FILES = {INVERSION, SHEET, RECORD}
_DEGREES = [(yaw, 0.0) for yaw in range(0, 360, 45)] + [(yaw, 50.0) for yaw in range(0, 360, 90)]
"""Yaw and pitch of the views that a head's surface is taken from."""
_SOLID, _NOTHING = 0.9, 0.02

log = logging.getLogger(__name__)


class _Seen(NamedTuple):
    """A head and what its renders show: its planes, its volume, and its surface."""

    inversion: Inversion
    planes: Tensor
    field: Field
    surface: SurfaceSamples


def take_part(
    run: Path, other: Path, part: str, out: Path | None, device: str | torch.device = "cpu", steps: int = _STEPS
) -> Path:
    """Write a folder with the head of `run` that has a part of the head of `other`.

    Hair is taken with all that it leaves bare: where the first head had hair and the second has none, the second's
    scalp, ears and neck are shown in the tone of the first's skin. A part of the face takes the first's tone too.

    Args:
        run, other: folders of finished inversions of one generator, or of edits of these.
        part: one of `pmv.portrait.head_parts.PARTS`.
        out: the new folder; None = beside `run`, named after it, the part and `other`.
        steps: in which the planes are fitted.

    Returns: the folder, as `pmv.apps.attributes.edit_run` writes it.

    Raises:
        InputError: no such part, none that can be found on `other`, no finished inversion, heads of other generators,
            a generator of something else than whole heads, or a folder in the way.
        CheckpointError: a generator is missing, or is not the one that its head was made with.
    """
    if part not in PARTS:
        raise InputError(f"--part {shown(part)}: no such part; there are {', '.join(PARTS)}")
    inversions = [load_inversion(path, device) for path in (run, other)]
    paths = [path / INVERSION if path.is_dir() else path for path in (run, other)]
    header: dict[str, Any] = dict(inversion_header(paths[0]))
    _check_alike(inversions, paths)
    origin, lender = (path.parent.resolve() for path in paths)
    folder = out or origin.with_name(f"{origin.name}-{part}-of-{lender.name}")
    check_replaceable(folder, _FILES, "an edit")

    first, second = (_seen(inversion) for inversion in inversions)
    before = head_views(first.inversion)
    mean = mean_head(FRAMINGS[own_framing(first.inversion.generator.spec)])
    volume, hair = _region(first, second, part, mean, lender)
    target = MixedField(_toned(first, second, hair, mean), first.field, volume)
    surface = torch.from_numpy(np.concatenate([first.surface.points, second.surface.points])).float()
    log.info("%s: its %s is fitted, in %d steps", lender.name, part, steps)
    residual = _fitted(first, second, target, volume, surface, steps)
    tuned = load_fields(paths[0], ["tuned_state"], device)["tuned_state"] | {RESIDUAL: residual}
    origin = header.get("edited_from", str(origin))
    header = {name: value for name, value in header.items() if name not in ("kinds", "attributes")}
    record: dict[str, Any] = {"run": origin, "reference": str(lender), "part": part}
    if (kept := _kept(first, residual, volume)) is not None:
        log.info("what stays of the photo's view: %.1f dB", kept)
        record["kept_psnr"] = kept
    write_edit(folder, tuned, first.inversion, header | {"edited_from": origin}, before, record)
    return folder


def _fitted(first: _Seen, second: _Seen, target: Field, volume: PartVolume, surface: Tensor, steps: int) -> Tensor:
    """The residual [1,...] with which the first head's planes show the target.

    It begins with the second head's planes, by as much as lies over each texel of the part: from the first head's own,
    a fit does not find the other's colours.
    """
    inversion, spec = first.inversion, first.inversion.generator.spec
    own = inversion.generator.plane_residual
    own = torch.zeros_like(first.planes) if own is None else own.detach()
    shape, convention = tuple(first.planes.shape[1:]), spec.plane_convention
    texels = touched_texels(volume.values, convention, shape)
    share = share_of_texels(volume.values, target, spec.box, convention, shape) * texels
    # squared: where little of the part lies over a texel, the other head's detail would shine through
    start = own + share.to(own).square() * (second.planes - first.planes)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        base = first.planes - own
    return fit_to_field(inversion.generator, base, start, target, volume, surface, texels, steps, rng)


@torch.no_grad()
def _kept(first: _Seen, residual: Tensor, volume: PartVolume) -> float | None:
    """PSNR in dB of the new head's picture against the first's from the photo's camera, wherever neither shows the
    part; None = nowhere."""
    inversion, own = first.inversion, first.inversion.generator.plane_residual
    base = first.planes if own is None else first.planes - own
    camera = inversion.camera
    renders = [inversion.generator.render(planes, inversion.w, camera) for planes in (first.planes, base + residual)]
    stays = torch.ones_like(renders[0].alpha)
    for render in renders:
        points = camera.unproject(render.depth)
        part = volume(points.flatten(1, 2)).reshape(render.depth.shape)
        stays = stays * (part < _NOTHING) * (render.alpha > _SOLID)
    before, after = (render.image.clamp(-1, 1) for render in renders)
    stays = (resize(stays, after.shape[-1]) > _SOLID).float()
    return psnr(after, before, stays).item() if stays.any() else None


def _check_alike(inversions: list[Inversion], paths: list[Path]) -> None:
    """InputError unless both are heads of one generator, which has a residual and whole heads."""
    (mine, theirs), (first, second) = (inversion_header(path) for path in paths), inversions
    if mine["generator_hash"] != theirs["generator_hash"]:
        raise InputError(f"{paths[1]}: made with another generator than {paths[0]}; parts go from head to head of one")
    if first.generator.spec != second.generator.spec:
        raise InputError(f"{paths[1]}: made with other generator.* settings than {paths[0]}; give a head of the same")
    spec = first.generator.spec
    if not (spec.full_head and spec.has_alpha and guess_domain(spec) == "heads"):
        raise InputError(f"{paths[0]}: its generator draws no whole heads, whose parts could be told apart")
    try:
        first.generator.tunable_parameters("residual")
    except ValueError as error:
        raise InputError(f"{paths[0]}: its generator has no residual that a part could be put into") from error


@torch.no_grad()
def _seen(inversion: Inversion) -> _Seen:
    generator = inversion.generator
    planes = generator.planes(inversion.w, inversion.noise)
    cameras = _around(generator.spec).to(planes.device)
    views = render_planes(generator, planes, inversion.w, cameras)
    solid = views.alpha[:, 0] > _SOLID
    points = cameras.unproject(views.depth)[solid].cpu().numpy()
    if not len(points):
        raise InputError("a head is transparent from every side, there is no part to be told from another")
    colours = views.raw.permute(0, 2, 3, 1)[solid].cpu().numpy()
    return _Seen(inversion, planes, generator.field(planes), SurfaceSamples(points, colours))


def _around(spec: GeneratorSpec) -> Camera:
    yaw, pitch = (torch.tensor(values) * math.pi / 180 for values in zip(*_DEGREES))
    return spec.orbit(yaw, pitch)


def _region(
    first: _Seen, second: _Seen, part: str, mean: MeanHead, lender: Path
) -> tuple[PartVolume, PartVolume | None]:
    """Where the second head is to be seen, and where its hair is; None = it has none."""
    box = first.inversion.generator.spec.box
    hairs = []
    # of hair that is to go no fringe must be left; no more than is needed is taken of the other's
    for head, wider in ((first, _CLEARED * mean.centimetre if part == HAIR else 0.0), (second, 0.0)):
        share = hair_share(head.surface, mean)
        hairs.append(None if share is None else part_volume(head.surface.points, share, box, SEAM * box, wider))
    hair = hairs[1]
    anywhere = [volume.values for volume in hairs if volume is not None]
    if part == HAIR:
        if hair is None:
            raise InputError(f"{lender}: no hair was found on its head: its crown has the colour of its cheeks")
        return PartVolume(torch.stack(anywhere).amax(0), box), hair
    values = part_volume(mean.vertices, face_share(part, mean), box, SEAM * box).values
    for covering in anywhere:
        values = values * (1 - covering)
    return PartVolume(values, box), hair


class _Toned:
    """A volume whose features are shifted from one skin's to another's wherever there is no hair: by as much as they
    are as bright as that skin, so that beards and shadows stay dark."""

    def __init__(self, field: Field, skin: Tensor, wanted: Tensor, hair: PartVolume | None) -> None:
        """Args: skin, wanted: features [C], of which the first three are EG3D's raw colours."""
        self.field, self.skin, self.wanted, self.hair = field, skin, wanted, hair

    def density(self, points: Tensor, features: bool) -> tuple[Tensor, Tensor]:
        """See `pmv.generators.base.Field.density`."""
        density, found = self.field.density(points, features)
        if not features:
            return density, found
        colour = self.skin[:3]
        bright = (found[..., :3] @ colour / colour.square().sum().clamp_min(1e-4)).clamp(0, 1.5)[..., None]
        bare = 1 if self.hair is None else 1 - self.hair(points)[..., None]
        return density, found + bare * bright * (self.wanted - self.skin)


@torch.no_grad()
def _toned(first: _Seen, second: _Seen, hair: PartVolume | None, mean: MeanHead) -> Field:
    """The second head's volume, its skin in the tone of the first's."""
    tones = []
    for head in (first, second):
        skin = head.surface.points[skin_places(head.surface, mean)]
        if not len(skin):
            return second.field
        points = torch.from_numpy(skin).float().to(head.planes.device)[None]
        tones.append(head.field.density(points, True)[1][0].median(0).values)
    return _Toned(second.field, tones[1], tones[0], hair)
