"""What a fitted face says about the picture: depth and normals of its skin, and how far they are to be believed."""

from dataclasses import dataclass

import torch
from torch import Tensor

from pmv.geometry.camera import Camera
from pmv.geometry.raster import interpolate, rasterize
from pmv.portrait.face_fit import FaceFit

_GRAZING, _FACING = 0.2, 0.5  # cosine between normal and ray: no confidence, full confidence
_USUAL = 0.3  # centimetres of deviation at which confidence has fallen to one half
_LEAST_SKIN = 0.15  # below it nothing is said: what is blended there would end in a step


@dataclass(frozen=True)
class FaceDepth:
    """What one camera sees of a fitted face.

    Attributes:
        depth: [1,1,S,S] z-depth in world units, 0 where there is no face.
        normals: [1,3,S,S] outward unit normals in the world, 0 where there is no face.
        confidence: [1,1,S,S] in [0,1]: falls towards hair, ears and neck, where the skin turns away, and where no
            landmark says much; 0 where there is no face.
    """

    depth: Tensor
    normals: Tensor
    confidence: Tensor


def face_depth(fit: FaceFit, camera: Camera, size: int) -> FaceDepth:
    """Draws a fitted face in the picture that it was fitted to.

    Args:
        fit: of `pmv.portrait.face_fit.fit_face`, with this camera's intrinsics.
        camera: batch of 1; the face keeps its place in the picture and gets this camera's world. Its size is that with
            which the camera is as far from the origin as EG3D's world has it; `pmv.geometry.blend` corrects it.
        size: S.
    """
    if len(camera) != 1:
        raise ValueError(f"a face is drawn in the picture of one camera, got {len(camera)}")
    given = camera.intrinsics[0].double().cpu()
    if (given - torch.from_numpy(fit.intrinsics)).abs().max() > 1e-3:
        raise ValueError("the face was fitted for other intrinsics than the camera's")
    face, device, dtype = fit.face, camera.cam2world.device, camera.cam2world.dtype
    scale = fit.scale(float(camera.position.norm()))
    own = Camera(torch.eye(4, dtype=torch.float64)[None], torch.from_numpy(fit.intrinsics)[None])
    local = torch.from_numpy(fit.vertices)
    triangles = torch.from_numpy(face.triangles)
    fragments = rasterize(local, triangles, own, size, size)
    normals = face.normals(fit.vertices)
    cosine = torch.from_numpy(-(normals * fit.vertices).sum(1)) / local.norm(dim=1)
    belief = torch.from_numpy(face.skin / (1 + (fit.deviation / _USUAL) ** 2))
    values = interpolate(
        torch.cat(
            [torch.from_numpy(normals), cosine[:, None], belief[:, None], torch.from_numpy(face.skin)[:, None]], 1
        ),
        fragments,
        triangles,
    )[0]
    facing = ((values[..., 3] - _GRAZING) / (_FACING - _GRAZING)).clamp(0, 1)
    on_skin = ((values[..., 5] - _LEAST_SKIN) / (1 - _LEAST_SKIN)).clamp(0, 1) / values[..., 5].clamp_min(1e-6)
    confidence = facing * values[..., 4] * on_skin
    turned = values[..., :3] @ camera.cam2world[0, :3, :3].double().cpu().T
    turned = torch.nn.functional.normalize(turned, dim=-1)
    return FaceDepth(
        (fragments.depth * scale)[None].to(device, dtype),
        turned.permute(2, 0, 1)[None].to(device, dtype),
        confidence[None, None].to(device, dtype),
    )
