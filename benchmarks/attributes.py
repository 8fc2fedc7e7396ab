"""Attributes of an inverted head changed by `pmv edit`, against the same change of the true head.

A demo portrait is a synthetic head, so what it looks like older or with longer hair can be drawn. The run is an
inversion of it (`--preset demo`); the finished, tuned head is edited. What an edit *does* is the difference of two
pictures, edited minus unedited, of pmv's head and of the true one, from the input's side and from ±30° beside it:

- correlation: cosine of the two differences over pixels and channels. 1 = the same change at the same place.
- strength: how much of the true difference is in pmv's (its projection). 1 = neither fainter nor stronger.
- edited, unedited: PSNR inside the head of the edited and of the unedited inversion against the changed true head. An
  edit is worth making where the first is higher.
- left: "edited", had the residual of the planes stayed where it was (`pmv.generators.residual` moves it with the head's
  shape).
- rest: PSNR of the edited against the unedited inversion where the true head does not change.

An attribute goes by two standard deviations to the side where the head has more room for it.
"""

import platform
from pathlib import Path
from typing import Any

import click
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.edit import carried
from pmv.files.artifacts import read_header, write_json
from pmv.fitting.metrics import psnr
from pmv.generators.directions import edit, load_directions
from pmv.geometry.camera import Camera
from pmv.inversion import Inversion, load_inversion
from pmv.pictures.images import resize, to_uint8, write_png
from pmv.pictures.masks import dilate
from pmv.pictures.sheets import tile
from pmv.training.directions import changed
from pmv.training.heads import HeadParameters, HeadRenderer, build_head, load_assets, sample_parameters
from pmv.training.heads.attributes import ATTRIBUTES, latents_of, values_of
from pmv.training.heads.demo_portraits import PORTRAITS

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "benchmarks" / "results" / "attributes.json"
SIZE = 256
YAW = 30.0
_UNCHANGED = 0.03
_CHANGED = 0.1


def compare(plain: Tensor, edited: Tensor, true_plain: Tensor, true_edited: Tensor, head: Tensor) -> dict[str, float]:
    """How alike two changes are: pictures [V,3,S,S] in [-1,1]; head [V,1,S,S], where either true head is; see the
    module's text. "rest" is NaN where nothing stays."""
    ours, true = edited - plain, true_edited - true_plain
    moved = dilate((true.abs().mean(1, keepdim=True) > _CHANGED).float(), 0.02)
    same = head * (1 - moved) * (true.abs().mean(1, keepdim=True) < _UNCHANGED)
    return {
        "correlation": float((ours * true).sum() / (ours.norm() * true.norm()).clamp_min(1e-9)),
        "strength": float((ours * true).sum() / true.square().sum()),
        "edited": float(psnr(edited, true_edited, head).mean()),
        "unedited": float(psnr(plain, true_edited, head).mean()),
        "rest": float(psnr(edited, plain, same).mean()) if same.any() else float("nan"),
    }


@torch.no_grad()
def views_of(inversion: Inversion, w: Tensor, residual: Tensor | None, cameras: Camera) -> Tensor:
    """[V,3,SIZE,SIZE] of a latent w with a residual of the planes; the inversion keeps its own."""
    own = inversion.generator.plane_residual
    planes = inversion.generator.planes(w, inversion.noise)
    if own is not None and residual is not None:
        planes = planes - own + residual
    pictures = [inversion.generator.render(planes, w, cameras[i]).image for i in range(len(cameras))]
    return resize(torch.cat(pictures), SIZE).clamp(-1, 1)


def true_views(renderer: Any, assets: Any, values: NDArray, cameras: Camera) -> tuple[Tensor, Tensor]:
    """Pictures [V,3,SIZE,SIZE] on mid grey and coverage [V,1,SIZE,SIZE] of the head of values [1,D]."""
    renderer.load(build_head(assets, HeadParameters(latents_of(values)[0])))
    pictures, alphas = [], []
    for i in range(len(cameras)):
        view = renderer.render(cameras[i].cam2world[0].numpy(), cameras[i].intrinsics[0].numpy())
        pictures.append(torch.from_numpy(view.over((0.5, 0.5, 0.5))).permute(2, 0, 1) / 127.5 - 1)
        alphas.append(torch.from_numpy(view.alpha)[None])
    return torch.stack(pictures), torch.stack(alphas)


def table(figures: dict[str, dict[str, float]]) -> str:
    """The figures in Markdown."""
    lines = ["| attribute | by | correlation | strength | edited (dB) | left (dB) | unedited (dB) | rest (dB) |"]
    lines.append("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name, row in figures.items():
        lines.append(
            f"| {name} | {row['by']:+.1f} | {row['correlation']:.2f} | {row['strength']:.2f} | {row['edited']:.2f} | "
            f"{row['left']:.2f} | {row['unedited']:.2f} | {row['rest']:.1f} |"
        )
    return "\n".join(lines)


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--makehuman", type=click.Path(path_type=Path), required=True, help="A MakeHuman checkout.")
@click.option("--portrait", default="plain", show_default=True, help="Which of assets/portraits RUN inverts.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="JSON; a PNG beside it.")
def main(run: Path, makehuman: Path, portrait: str, out: Path) -> None:
    whose = next(p for p in PORTRAITS if p.name == portrait)
    inversion = load_inversion(run)
    header = read_header(run / "inversion.safetensors")
    directions = load_directions(header["generator"], header["generator_hash"])
    assets, renderer = load_assets(makehuman), HeadRenderer(SIZE, supersample=2, specular=True)
    values = values_of(sample_parameters(whose.seed).z[None])
    seen = torch.tensor([0.0, -YAW, YAW])
    truth = Camera.orbit((whose.yaw_deg + seen).deg2rad(), torch.full((3,), whose.pitch_deg).deg2rad())
    ours = carried(truth[0], inversion.camera, truth)
    plain = views_of(inversion, inversion.w, inversion.generator.plane_residual, ours)
    true_plain, head = true_views(renderer, assets, values, truth)
    figures: dict[str, dict[str, float]] = {}
    shown, labels = [], []
    for attribute in ATTRIBUTES:
        about = directions.about[directions.names.index(attribute.name)]
        now = attribute.read(values)[0]
        side = 1.0 if attribute.high - now >= now - attribute.low else -1.0
        other = changed(values, attribute, 2 * side * about.deviation)
        by = float((attribute.read(other)[0] - now) / about.deviation)
        true_edited, other_head = true_views(renderer, assets, other, truth)
        changes = {attribute.name: by}
        w, residual = edit(inversion.generator, inversion.w, inversion.noise, directions, changes)
        edited = views_of(inversion, w, residual, ours)
        left = views_of(inversion, w, inversion.generator.plane_residual, ours) if attribute.shape else edited
        where = torch.maximum(head, other_head)
        row = compare(plain, edited, true_plain, true_edited, where)
        figures[attribute.name] = {"by": by, **row, "left": float(psnr(left, true_edited, where).mean())}
        shown += [true_plain[:1], true_edited[:1], plain[:1], edited[:1], edited[2:]]
        labels += ["true", f"{attribute.name} {by:+.1f}", "pmv", f"pmv {by:+.1f}", f"yaw {YAW:+.0f}"]
        print(table({attribute.name: figures[attribute.name]}).splitlines()[-1], flush=True)
    print(table(figures))
    machine = {"machine": platform.processor() or platform.machine(), "torch": torch.__version__}
    write_json(out, {"portrait": portrait, "size": SIZE, "yaw": YAW, "attributes": figures, **machine})
    write_png(out.with_suffix(".png"), tile([to_uint8(x)[0] for x in shown], labels, columns=5))


if __name__ == "__main__":
    main()
