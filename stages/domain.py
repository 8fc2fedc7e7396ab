"""What kind of thing a generator draws (its *domain*), and the config that goes with it (configs/generators).

A domain is found by `run.domain` if that names one, else by the manifest if it knows the checkpoint, else by what the
checkpoint itself says. A published or named domain's numbers hold. Where the domain had to be guessed, the checkpoint's
own numbers win over the domain's.
"""

import logging
from dataclasses import fields
from typing import Any

from pmv import data_path
from pmv.errors import InputError
from pmv.files.manifest import recognise
from pmv.geometry.camera import EG3D_FOCAL
from pmv.pipeline.config import GeneratorConfig, RunConfig, read_yaml

log = logging.getLogger("pmv")

AUTO = "auto"


def domain_names() -> list[str]:
    """The domains that have a config."""
    return sorted(path.stem for path in data_path("configs", "generators").glob("*.yaml"))


def find_domain(run: RunConfig, spec: Any) -> tuple[str, bool]:
    """(domain, whether its numbers hold even where the checkpoint says otherwise).

    Raises:
        InputError: `run.domain` names none that there is.
    """
    if run.domain != AUTO:
        if run.domain not in domain_names():
            raise InputError(
                f"run.domain: no generator config is called {run.domain!r}; there are {AUTO}, "
                f"{', '.join(domain_names())}"
            )
        return run.domain, True
    entry = recognise(run.generator)
    if entry is not None and entry.domain is not None:
        return entry.domain, entry.shipped is None
    domain = guess_domain(spec)
    log.info("%s: taken for a generator of %s; --set run.domain=… says otherwise", run.generator, domain)
    return domain, False


def guess_domain(spec: Any) -> str:
    """The domain that the numbers of a `GeneratorSpec` speak for."""
    if spec.radius < 2:  # EG3D's cars: 1.7; everything else: 2.7
        return "cars"
    if spec.full_head or spec.family == "panohead":
        return "heads"
    return "cats" if spec.pivot[2] < 0 else "ffhq"  # EG3D's pivots: −0.06 and 0.2


def domain_layers(run: RunConfig, spec: Any) -> tuple[str, list[tuple[str, dict[str, Any]]]]:
    """The domain, and the config layers that belong between the base config and the presets."""
    domain, certain = find_domain(run, spec)
    path = data_path("configs", "generators", domain + ".yaml")
    layers = [(str(path), read_yaml(path))]
    if not certain:
        layers.append((f"the checkpoint {run.generator}", {"generator": _said(spec)}))
    return domain, layers


def _said(spec: Any) -> dict[str, Any]:
    """The values of the block `generator` that a checkpoint speaks for."""
    # no conditioning camera is written in any checkpoint
    names = [f.name for f in fields(GeneratorConfig) if not f.name.startswith("conditioning")]
    said = {name: getattr(spec, name) for name in names}
    if said["focal"] == EG3D_FOCAL:
        # official checkpoints do not say a focal length; readers fill in FFHQ's
        del said["focal"]
    return said
