"""Writes a generator as its authors' training code would: a pickle of a module tree behind the persistence wrapper.

For measuring how long such files take to read, without having one. The wrapper's source code, which official readers
would execute, is a comment here.
"""

import copyreg
import pickle
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

FFHQ512_128: dict[str, Any] = {
    "z_dim": 512,
    "c_dim": 25,
    "w_dim": 512,
    "img_resolution": 512,
    "img_channels": 3,
    "mapping_kwargs": {"num_layers": 2},
    "channel_base": 32768,
    "channel_max": 512,
    "num_fp16_res": 0,
    "conv_clamp": None,
    "sr_num_fp16_res": 4,
    "sr_kwargs": {"channel_base": 32768, "channel_max": 512, "fused_modconv_default": "inference_only"},
    "rendering_kwargs": {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid8XDC",
        "superresolution_noise_mode": "none",
        "sr_antialias": True,
        "clamp_mode": "softplus",
        "disparity_space_sampling": False,
        "c_gen_conditioning_zero": False,
        "c_scale": 1.0,
        "decoder_lr_mul": 1.0,
        "depth_resolution": 48,
        "depth_resolution_importance": 48,
        "ray_start": 2.25,
        "ray_end": 3.3,
        "box_warp": 1,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, 0.2],
    },
}
"""Constructor arguments of EG3D's published FFHQ 512-128 generator, as its train.py (--cfg=ffhq) makes them."""
PANOHEAD: dict[str, Any] = FFHQ512_128 | {
    "rendering_kwargs": FFHQ512_128["rendering_kwargs"]
    | {
        "decoder_activation": "none",
        "use_torgb_raw": True,
        "use_background": True,
        "triplane_size": 256,
        "triplane_depth": 3,
    }
}
"""Constructor arguments of PanoHead's published generator, as its README trains it."""


def write_official(generator: nn.Module, init_kwargs: dict[str, Any], neural_resolution: int, path: Path) -> None:
    """Write `{"G_ema": generator}` in the official layout.

    Args:
        generator: its module tree must have the official state-dict keys.
        init_kwargs: its constructor arguments in the official code.
        neural_resolution: side of the ray-marched image.
    """
    names = ("torch_utils", "torch_utils.persistence")
    kept = {name: sys.modules.get(name) for name in names}
    package, persistence = (ModuleType(name) for name in names)

    def reconstruct(meta: dict[str, Any]) -> None:
        raise NotImplementedError("only its name is written")

    reconstruct.__module__, reconstruct.__qualname__ = persistence.__name__, "_reconstruct_persistent_obj"
    setattr(persistence, reconstruct.__qualname__, reconstruct)
    package.persistence = persistence  # type: ignore[attr-defined]

    class Wrapped:
        def __init__(self, module: nn.Module, class_name: str, **more: Any) -> None:
            self.meta = {
                "type": "class",
                "version": 6,
                "module_src": "# official files hold their Python source here\n",
                "class_name": class_name,
                "state": {
                    "training": False,
                    "_parameters": dict(module.named_parameters(recurse=False)),
                    "_buffers": dict(module.named_buffers(recurse=False)),
                    "_modules": {name: Wrapped(child, "Module") for name, child in module.named_children()},
                    **more,
                },
            }

    def reduce(wrapped: Wrapped) -> tuple[Any, ...]:
        return reconstruct, (wrapped.meta,)

    copyreg.pickle(Wrapped, reduce)  # type: ignore[arg-type]
    try:
        sys.modules.update(zip(names, (package, persistence)))
        content = Wrapped(
            generator,
            "TriPlaneGenerator",
            _init_args=(),
            _init_kwargs=init_kwargs,
            rendering_kwargs=init_kwargs["rendering_kwargs"],
            neural_rendering_resolution=neural_resolution,
        )
        with path.open("wb") as file:
            pickle.dump({"G_ema": content}, file, protocol=4)
    finally:
        copyreg.dispatch_table.pop(Wrapped, None)
        for name, module in kept.items():
            if module is None:
                sys.modules.pop(name, None)
            else:
                sys.modules[name] = module
