"""How faces measure: synthetic heads beside the scans' own random heads.

python -m pmv.training.heads.statistics --assets heads.npz --scans ICT-FaceKit

All heads are neutral and brought into EG3D's space in the same way (by eyes and mouth). Depths are along z from the
middle between the eyeballs' centres.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pmv.training.heads.assets import HeadAssets
from pmv.training.heads.build import Alignment, body_of
from pmv.training.heads.compile import load_assets
from pmv.training.heads.meshes import triangulate
from pmv.training.heads.parameters import SCAN_MODE_NAMES, HeadParameters, sample_parameters
from pmv.training.heads.registration import front_point, sphere
from pmv.training.heads.scans import EYEBALLS, MULTI_PIE, ScanModel, read_scans

MEASURES = (
    "nose tip, depth", "between the eyes, depth", "forehead, depth", "cheek, depth", "temple, depth", "lips, depth",
    "chin, depth", "chin, below the eyes", "width at the cheekbones", "width of the jaw", "crown, above the eyes",
    "nose tip to the back of the head",
)  # fmt: skip


def _still(parameters: HeadParameters, share: float) -> HeadParameters:
    """The head without expression, of one kind of face."""
    names = (name for name in HeadParameters.names if name.startswith("expression/"))
    still = {name.replace("/", "__").replace("-", "_"): 0.0 for name in names}
    return parameters.replace(**still, scan__share=share, macro__size=1.0)


def synthetic_heads(
    assets: HeadAssets, count: int, share: float
) -> Iterator[tuple[NDArray, NDArray, NDArray, NDArray]]:
    """Skin [S,3], triangles [T,3], eyes [2,3] and mouth [3] with the chin [3] stacked as [2,3], in EG3D's space, of
    grown-up heads."""
    triangles = triangulate(assets.skin.quads)
    found = 0
    for seed in range(10 * count):
        parameters = sample_parameters(seed)
        if parameters["macro/child"] > 0 or found == count:
            continue
        found += 1
        body = body_of(assets, _still(parameters, share))
        eyeballs = assets.eyes.binding.fit(body)
        eyes = np.stack([sphere(eyeballs[eyeballs[:, 0] * side > 0])[0] for side in (1, -1)])
        chin, upper, lower = body[assets.landmarks[:3]]
        mouth = (upper + lower) / 2
        world = Alignment.of_points(eyes, mouth, 1.0)
        yield (
            world(assets.skin.subdivide(body)),
            triangles,
            world(eyes),
            world(np.stack([mouth, chin])),
        )


def scanned_heads(
    scans: ScanModel, count: int, rotation: NDArray
) -> Iterator[tuple[NDArray, NDArray, NDArray, NDArray]]:
    """The same of random heads of the scans' model, with as many modes as synthetic heads have, turned as these hold
    their heads."""
    triangles = triangulate(scans.quads[scans.outside])
    rng = np.random.default_rng(0)
    for _ in range(count):
        vertices = scans.neutral + np.tensordot(rng.standard_normal(len(SCAN_MODE_NAMES)), scans.modes, 1)
        vertices = vertices @ rotation.T
        eyes = np.stack([sphere(vertices[part])[0] for part in EYEBALLS])
        mouth = vertices[[MULTI_PIE[62], MULTI_PIE[66]]].mean(0)
        world = Alignment.of_points(eyes, mouth, 1.0)
        yield world(vertices[:11248]), triangles, world(eyes), world(np.stack([mouth, vertices[MULTI_PIE[8]]]))


def _measure(skin: NDArray, triangles: NDArray, eyes: NDArray, points: NDArray) -> list[float]:
    middle = eyes.mean(0)
    mouth, chin = points

    def depth(x: float, y: float) -> float:
        corners, weights = front_point(skin, triangles, x, middle[1] + y)
        return float(weights @ skin[corners][:, 2] - middle[2])

    def both(x: float, y: float) -> float:
        return (depth(x, y) + depth(-x, y)) / 2

    def width(low: float, high: float, behind: float) -> float:
        slab = (skin[:, 1] > low) & (skin[:, 1] < high) & (skin[:, 2] > middle[2] - behind)
        return float(np.ptp(skin[slab, 0]))

    nose = skin[(np.abs(skin[:, 0]) < 0.03) & (skin[:, 1] < middle[1]) & (skin[:, 1] > mouth[1]), 2].max()
    above = skin[skin[:, 1] > middle[1] - 0.05]
    return [
        nose - middle[2], depth(0, 0), depth(0, 0.11), both(0.075, -0.085), both(0.11, 0.02),
        depth(0, mouth[1] - middle[1] + 0.012), chin[2] - middle[2], middle[1] - chin[1],
        width(middle[1] - 0.06, middle[1] - 0.04, 0.09), width(mouth[1] - 0.01, mouth[1] + 0.01, 0.09),
        above[:, 1].max() - middle[1], nose - above[:, 2].min(),
    ]  # fmt: skip


def measure(heads: Iterable[tuple[NDArray, NDArray, NDArray, NDArray]]) -> NDArray:
    """`MEASURES` of each head in world units, [N,M]."""
    return np.array([_measure(*head) for head in heads])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pmv.training.heads.statistics", description=__doc__)
    parser.add_argument("--assets", type=Path, required=True, help="compiled heads.npz that holds scans")
    parser.add_argument("--scans", type=Path, required=True, help="checkout of ICT-FaceKit")
    parser.add_argument("--heads", type=int, default=200, help="of each kind")
    options = parser.parse_args(arguments)
    assets = load_assets(options.assets)
    kinds = {
        "scans": measure(scanned_heads(read_scans(options.scans), options.heads, assets.scans.rotation)),
        "share 1": measure(synthetic_heads(assets, options.heads, 1.0)),
        "share 0": measure(synthetic_heads(assets, options.heads, 0.0)),
    }
    print("thousandths of a world unit, mean ± standard deviation")
    print(f"{'':34s}" + "".join(f"{name:>16s}" for name in kinds))
    for column, name in enumerate(MEASURES):
        cells = (f"{1e3 * of[:, column].mean():.1f} ± {1e3 * of[:, column].std():.1f}" for of in kinds.values())
        print(f"{name:34s}" + "".join(f"{cell:>16s}" for cell in cells))


if __name__ == "__main__":
    main()
