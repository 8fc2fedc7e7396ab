"""Directions in w along which a generator of synthetic heads ages, smiles, grows its hair.

`python -m pmv.training.directions --generator heads --out assets/generator/directions.safetensors` finds them, measures
what else they change, prints the table and writes it beside them as JSON; `--strip PNG` draws a row an attribute.

z are the normalised parameters of a head, so an edit is known exactly in z; w = map(z) without a camera. Three steps:

1. Candidates, `METHODS`: from sampled heads and the same heads with one attribute changed.
2. Measured in pictures (`measure`): on heads that no candidate was made from, the picture of w + direction is
   explained, by least squares, with the pictures of z changed in each attribute. That says how much of every attribute
   an edit really brings, and what is left that no attribute explains; it never looks at w.
3. The candidate with the largest share of the change in the attribute that was meant is kept, as it is.

+1 is the change of w that belongs to one standard deviation of the attribute over sampled heads, on average over heads.
Since the map is not linear, a single head may get less of it: `brings` in the JSON says how much.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pmv.errors import InputError, PmvError
from pmv.files.artifacts import tensors_hash, write_json
from pmv.generators import EG3DGenerator, load_generator
from pmv.generators.directions import FILE_NAME, Direction, Directions, load_directions, save_directions
from pmv.pictures.images import to_uint8, write_png
from pmv.pictures.sheets import tile
from pmv.training.data import HELD_OUT_SEED
from pmv.training.heads.attributes import ATTRIBUTES, Attribute, latents_of, values_of
from pmv.training.heads.parameters import HeadParameters, sample_parameters

METHODS = {
    "difference": "mean change of w where only this attribute of z changes",
    "projected": "difference, less its part in the span of the other attributes' differences (orthogonal in w)",
    "dual": "mixture of the differences that a linear read-out of w sees as this attribute alone",
    "readout": "shortest change of w that the linear read-out sees as this attribute alone (pseudo-inverse)",
}
"""Candidates → what they are."""
STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Columns of the strip."""


def sample_heads(count: int, first_seed: int) -> NDArray:
    """Values [N,D] of heads with consecutive seeds."""
    return values_of(np.stack([sample_parameters(first_seed + i).z for i in range(count)]))


def deviations(values: NDArray) -> NDArray:
    """[A]: the standard deviation of each attribute over heads that have it; what a direction's unit means."""
    return np.array([np.nanstd(attribute.read(values)) for attribute in ATTRIBUTES])


def changed(values: NDArray, attribute: Attribute, by: NDArray | float) -> NDArray:
    """Heads [N,D] with an attribute changed by an amount in its own unit, as far as its range allows."""
    target = attribute.read(values) + by
    return attribute.write(values, np.clip(target, attribute.low, attribute.high))


@torch.no_grad()
def latents(generator: EG3DGenerator, values: NDArray) -> Tensor:
    """Values [N,D] → w float64 [N,w_dim]."""
    z = torch.from_numpy(latents_of(values)).to(generator.device)
    return generator.map(z, generator.spec.canonical_camera)[:, 0].double()


def differences(generator: EG3DGenerator, values: NDArray, sd: NDArray) -> Tensor:
    """[A,w_dim]: for each attribute Σ Δa·Δw / Σ Δa², Δ between the head with one deviation more and one less of it."""
    rows = []
    for attribute, deviation in zip(ATTRIBUTES, sd):
        heads = values[~np.isnan(attribute.read(values))]
        more, less = changed(heads, attribute, deviation), changed(heads, attribute, -deviation)
        amount = torch.from_numpy((attribute.read(more) - attribute.read(less)) / deviation)
        moved = latents(generator, more) - latents(generator, less)
        rows.append((amount[:, None] * moved).sum(0) / amount.square().sum())
    return torch.stack(rows)


def read_out(w: Tensor, values: NDArray, sd: NDArray) -> tuple[Tensor, NDArray]:
    """Ridge regression of attributes, in deviations, on w.

    Args:
        w: [N,w_dim]; values: [N,D] of the same heads. A fifth of them judges.

    Returns: weights [A,w_dim] and R² [A] on the heads that judge.
    """
    rows, quality = [], []
    for attribute, deviation in zip(ATTRIBUTES, sd):
        amount = attribute.read(values) / deviation
        have = ~np.isnan(amount)
        x, y = w[torch.from_numpy(have)], torch.from_numpy(amount[have])
        fit = len(x) * 4 // 5
        mean, centre = x[:fit].mean(0), y[:fit].mean()
        centred = x[:fit] - mean
        gram = centred.T @ centred
        ridge = 1e-4 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        weights = torch.linalg.solve(gram + ridge, centred.T @ (y[:fit] - centre))
        error = y[fit:] - centre - (x[fit:] - mean) @ weights
        rows.append(weights)
        quality.append(1 - float(error.square().mean() / y[fit:].var()))
    return torch.stack(rows), np.array(quality)


def candidates(difference: Tensor, readout: Tensor) -> dict[str, Tensor]:
    """Name of `METHODS` → directions [A,w_dim], from the differences and the read-out's weights, both [A,w_dim]."""
    projected = []
    for i, direction in enumerate(difference):
        others = torch.cat([difference[:i], difference[i + 1 :]])
        projected.append(direction - others.T @ torch.linalg.lstsq(others.T, direction[:, None]).solution[:, 0])
    return {
        "difference": difference,
        "projected": torch.stack(projected),
        "dual": torch.linalg.solve(difference @ readout.T, difference),
        "readout": torch.linalg.pinv(readout).T.contiguous(),
    }


@dataclass(frozen=True)
class Effect:
    """What a set of directions was seen to do, in pictures of several heads.

    Attributes:
        brings: [A,A] deviations of the column's attribute that one unit of the row's direction brings, mean over the
            heads; ideally the identity.
        energy: [A,A+1] shares of the change's energy (squared difference of pictures, summed over the heads) that go to
            each attribute and, last, to none of them. Rows sum to 1.
    """

    brings: NDArray
    energy: NDArray

    @property
    def own(self) -> NDArray:
        """[A]: share of the energy that goes to the row's own attribute: 1 where nothing else changes."""
        return np.diag(self.energy)


@torch.no_grad()
def _picture(generator: EG3DGenerator, w: Tensor, rays: int) -> Tensor:
    """w [w_dim] → the ray-marched picture, seen a little from the side, flat; super-resolution adds only time."""
    rows = w.float()[None, None].expand(-1, generator.spec.num_ws, -1)
    image, _, _ = generator.march(generator.planes(rows), generator.spec.orbit(0.35, 0.0), rays, None)
    return image[:, :3].flatten().double()


def measure(
    generator: EG3DGenerator, sets: dict[str, Tensor], values: NDArray, sd: NDArray, rays: int = 48
) -> dict[str, Effect]:
    """Effects of several sets of directions.

    A head is changed by one deviation towards whichever side has more room. Pictures of z changed in each attribute are
    the columns that the change along a direction is explained with, by least squares.

    Args:
        sets: name → directions [A,w_dim].
        values: [N,D] heads that can have every attribute.
        rays: side of the pictures.
    """
    brings: dict[str, list[Tensor]] = {name: [] for name in sets}
    energy: dict[str, list[Tensor]] = {name: [] for name in sets}
    for head in values[:, None]:
        w = latents(generator, head)[0]
        before = _picture(generator, w, rays)
        signs, truths = [], []
        for attribute, deviation in zip(ATTRIBUTES, sd):
            now = attribute.read(head)[0]
            sign = 1.0 if attribute.high - now >= now - attribute.low else -1.0
            other = changed(head, attribute, sign * deviation)
            amount = (attribute.read(other)[0] - now) / deviation
            truths.append((_picture(generator, latents(generator, other)[0], rays) - before) / amount)
            signs.append(sign)
        true = torch.stack(truths, 1)
        for name, directions in sets.items():
            moved = [sign * (_picture(generator, w + sign * d, rays) - before) for sign, d in zip(signs, directions)]
            change = torch.stack(moved, 1)
            weights = torch.linalg.lstsq(true, change).solution
            left = (change - true @ weights).square().sum(0)
            brings[name].append(weights.T)
            energy[name].append(torch.cat([weights.T.square() * true.square().sum(0), left[:, None]], 1))
    effects = {}
    for name in sets:
        total = torch.stack(energy[name]).sum(0)
        effects[name] = Effect(torch.stack(brings[name]).mean(0).numpy(), (total / total.sum(1, keepdim=True)).numpy())
    return effects


@dataclass(frozen=True)
class Found:
    """What `find` gives: the directions, and everything that was measured on the way, as JSON."""

    directions: Directions
    report: dict


def find(generator: EG3DGenerator, heads: int = 2000, judges: int = 5, seed: int = 0, rays: int = 48) -> Found:
    """Finds, measures and picks directions; see the module's docstring.

    Args:
        generator: one whose z are the parameters of synthetic heads.
        heads: how many the candidates are made from.
        judges: held-out heads that they are measured on.
        seed: first seed of the heads.
        rays: side of the pictures that are compared.

    Raises:
        InputError: the generator's z are something else.
    """
    if generator.spec.z_dim != len(HeadParameters.names):
        raise InputError(
            f"the generator's z has {generator.spec.z_dim} numbers, a synthetic head {len(HeadParameters.names)}; "
            "directions are known only of generators that pmv.training.generator made"
        )
    values = sample_heads(heads, seed)
    sd = deviations(values)
    readout, quality = read_out(latents(generator, values), values, sd)
    sets = candidates(differences(generator, values, sd), readout)
    held_out = sample_heads(3 * judges, HELD_OUT_SEED + seed)
    whole = ~np.any([np.isnan(attribute.read(held_out)) for attribute in ATTRIBUTES], 0)
    effects = measure(generator, sets, held_out[whole][:judges], sd, rays)
    best = max(METHODS, key=lambda name: float(effects[name].own.mean()))
    about = tuple(
        Direction(a.name, a.plus, a.unit, round(float(d), 5), round(float((a.high - a.low) / d), 3), a.shape)
        for a, d in zip(ATTRIBUTES, sd)
    )
    directions = Directions(sets[best].float().cpu(), about, tensors_hash(generator.state_dict()))
    names = [a.name for a in ATTRIBUTES]
    seen = sets[best] @ readout.T
    report = {
        "method": best,
        "methods": {
            name: {"what": text, "own_energy": round(float(effects[name].own.mean()), 4)}
            for name, text in METHODS.items()
        },
        "heads": heads,
        "judges": judges,
        "seed": seed,
        "generator_hash": directions.generator_hash,
        "attributes": {
            name: {
                "plus": about[i].plus,
                "unit": about[i].unit,
                "deviation": about[i].deviation,
                "span": about[i].span,
                "own_energy": round(float(effects[best].own[i]), 4),
                "unexplained_energy": round(float(effects[best].energy[i, -1]), 4),
                "brings": _row(names, effects[best].brings[i]),
                "energy": _row(names, effects[best].energy[i]),
                "read_from_w": _row(names, seen[i].numpy()),
                "read_out_r2": round(float(quality[i]), 3),
            }
            for i, name in enumerate(names)
        },
    }
    return Found(directions, report)


def _row(names: Sequence[str], values: NDArray) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, values)}


def table(report: dict) -> str:
    """The measured effects in lines that people read."""
    names = list(report["attributes"])
    lines = [
        "what +1 of the row brings of each column, in standard deviations, and how much of the picture's change is",
        "the row's own, goes to the other attributes, and is none of them",
    ]
    lines.append(f"{'':12}" + "".join(f"{name[:10]:>11}" for name in names) + "      own   others     none")
    for name, entry in report["attributes"].items():
        shares = entry["own_energy"], 1 - entry["own_energy"] - entry["unexplained_energy"], entry["unexplained_energy"]
        lines.append(
            f"{name:12}"
            + "".join(f"{entry['brings'][other]:11.2f}" for other in names)
            + "".join(f"{100 * share:7.0f} %" for share in shares)
        )
    kept = ", ".join(f"{name} {100 * entry['own_energy']:.0f} %" for name, entry in report["methods"].items())
    lines.append(f"mean share of the own attribute by method: {kept}; kept: {report['method']}")
    return "\n".join(lines)


@torch.no_grad()
def strip(generator: EG3DGenerator, directions: Directions, seed: int, side: int = 160) -> NDArray:
    """uint8 [H,W,3]: a row an attribute, a column a step of `STEPS`, of one head of seed `seed`."""
    w = latents(generator, sample_heads(1, seed)).float()[:, None].expand(-1, generator.spec.num_ws, -1)
    camera = generator.spec.orbit(0.2, 0.0)
    pictures, labels = [], []
    for name in directions.names:
        for step in STEPS:
            moved = w + directions.offset({name: step}).to(w)
            image = generator.render(generator.planes(moved), moved, camera).image
            small = torch.nn.functional.interpolate(image.clamp(-1, 1), (side, side), mode="area")
            pictures.append(to_uint8(small)[0])
            labels.append(f"{name} {step:+.0f}" if step else "the head")
    return tile(pictures, labels, columns=len(STEPS))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m pmv.training.directions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--generator", default="heads", help="name or file")
    parser.add_argument(
        "--out", type=Path, help=f"the file to write; {FILE_NAME} beside the weights is where pmv looks"
    )
    parser.add_argument("--strip", type=Path, help="PNG to draw: a row an attribute, −2 to +2")
    parser.add_argument("--head", type=int, default=HELD_OUT_SEED + 127, help="seed of the head in the strip")
    parser.add_argument("--heads", type=int, default=2000, help="heads that directions are made from")
    parser.add_argument("--judges", type=int, default=5, help="held-out heads that they are measured on")
    parser.add_argument("--rays", type=int, default=48, help="side of the pictures that are compared")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.out is None and options.strip is None:
        parser.error("give --out, --strip or both")
    try:
        generator = load_generator(options.generator)
        if options.out is not None:
            started = time.perf_counter()
            found = find(generator, options.heads, options.judges, options.seed, options.rays)
            method = {key: found.report[key] for key in ("method", "heads", "seed")}
            save_directions(options.out, found.directions, method)
            write_json(options.out.with_suffix(".json"), found.report)
            print(f"{table(found.report)}\n{options.out}: {time.perf_counter() - started:.0f} s")
            directions = found.directions
        else:
            directions = load_directions(options.generator, tensors_hash(generator.state_dict()))
        if options.strip is not None:
            write_png(options.strip, strip(generator, directions, options.head))
            print(options.strip)
    except PmvError as error:
        parser.exit(2, f"pmv.training.directions: {error}\n")


if __name__ == "__main__":
    main()
