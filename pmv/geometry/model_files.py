"""Textured meshes as files of other programs: GLB and OBJ; shapes alone as STL. All are written by trimesh."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.visual.material import PBRMaterial, SimpleMaterial
from trimesh.visual.texture import TextureVisuals

from pmv.files.artifacts import atomic_path
from pmv.geometry.atlas import Atlas

_WHITE, _BLACK = [255, 255, 255, 255], [0, 0, 0, 255]
_UNLIT = "KHR_materials_unlit"
_VERTICES, _INDICES = 34962, 34963  # glTF: ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER
_QUALITY = 92
"""Of the JPEG inside a GLB: a texture of 2048² takes 0.5 MB instead of 6."""


def glb_bytes(atlas: Atlas, texture: np.ndarray, scale: float, about: Mapping[str, Any]) -> bytes:
    """A binary glTF 2.0: y up, the face looks along +z, as the world does.

    The material is unlit (KHR_materials_unlit), since the texture holds the photo's light.

    Args:
        texture: uint8 [T,T,3].
        scale: metres in a world unit; glTF's unit is the metre.
        about: kept in the file as ``asset.extras``.
    """
    jpeg = io.BytesIO()
    Image.fromarray(texture).save(jpeg, "JPEG", quality=_QUALITY, subsampling=0)
    material = PBRMaterial(
        name="head", baseColorTexture=Image.open(jpeg), metallicFactor=0.0, roughnessFactor=1.0, doubleSided=False
    )
    mesh = _mesh(atlas, scale, TextureVisuals(uv=_upwards(atlas.uv), material=material))

    def keep_jpeg(buffers: dict[Any, bytes], tree: dict[str, Any]) -> None:
        # trimesh decodes a JPEG and writes it anew, in the coarsest quality of Pillow's
        name = list(buffers)[tree["images"][0]["bufferView"]]
        data = jpeg.getvalue()
        buffers[name] = data + bytes(-len(data) % 4)

    def finish(tree: dict[str, Any]) -> None:
        shape = tree["meshes"][0]["primitives"][0]
        targets = dict.fromkeys(shape["attributes"].values(), _VERTICES) | {shape["indices"]: _INDICES}
        for accessor, target in targets.items():  # the validator wants it said
            tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]["target"] = target
        tree["asset"] |= {"generator": "pmv", "extras": dict(about)}
        tree["materials"][0].setdefault("extensions", {})[_UNLIT] = {}
        tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), _UNLIT})

    data = export_glb(
        trimesh.Scene({"head": mesh}),
        include_normals=True,
        tree_postprocessor=finish,
        buffer_postprocessor=keep_jpeg,
    )
    assert isinstance(data, bytes)
    return data


def write_glb(path: Path, atlas: Atlas, texture: np.ndarray, scale: float, about: Mapping[str, Any]) -> None:
    """Write what `glb_bytes` gives."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(glb_bytes(atlas, texture, scale, about))


def write_obj(folder: Path, name: str, atlas: Atlas, texture: np.ndarray, scale: float) -> None:
    """Write NAME.obj, NAME.mtl and NAME.png into a folder that is there.

    Args:
        texture: uint8 [T,T,3]. scale: of the file's unit in world units.
    """
    material = SimpleMaterial(name=name, image=Image.fromarray(texture), diffuse=_WHITE, specular=_BLACK)
    mesh = _mesh(atlas, scale, TextureVisuals(uv=_upwards(atlas.uv), material=material))
    text, files = export_obj(mesh, include_normals=True, return_texture=True, mtl_name=f"{name}.mtl", header="pmv")
    (folder / f"{name}.obj").write_text(text, encoding="utf-8")
    for file, content in files.items():
        (folder / file).write_bytes(content)


def write_stl(path: Path, vertices: Tensor, faces: Tensor, scale: float) -> None:
    """Write a binary STL of the shape alone; `scale` is of the file's unit in world units."""
    mesh = trimesh.Trimesh(vertices.cpu().numpy() * scale, faces.cpu().numpy(), process=False)
    with atomic_path(path) as temporary:
        mesh.export(temporary, file_type="stl")


def _mesh(atlas: Atlas, scale: float, visual: TextureVisuals) -> trimesh.Trimesh:
    return trimesh.Trimesh(
        atlas.vertices.numpy() * scale,
        atlas.faces.numpy(),
        vertex_normals=atlas.normals.numpy(),
        visual=visual,
        process=False,
    )


def _upwards(uv: Tensor) -> np.ndarray:
    """Our uv counts rows from the top, trimesh's from the bottom, as OBJ does."""
    turned = uv.numpy().astype(np.float64).copy()
    turned[:, 1] = 1 - turned[:, 1]
    return turned
