"""Are two runs the same to the bit? For changes that must change nothing: run the same command with the code before and
after, then ``python -m benchmarks.same_run BEFORE AFTER`` compares every tensor of every stage and of the result.

Exit code 1 if anything differs. Both runs on one machine with as many threads: other processors round otherwise.
"""

from pathlib import Path

import click
import torch
from safetensors.torch import load_file


def differences(before: Path, after: Path) -> tuple[int, list[str]]:
    """How many tensors were compared, and a line for each that is missing in one run or differs."""
    files = sorted({path.relative_to(run) for run in (before, after) for path in run.rglob("*.safetensors")})
    count, lines = 0, []
    for file in files:
        a, b = (load_file(run / file) if (run / file).is_file() else {} for run in (before, after))
        for name in sorted(a.keys() | b.keys()):
            count += 1
            if name not in a or name not in b:
                lines.append(f"{file}: {name} is in {'AFTER' if name in b else 'BEFORE'} alone")
            elif a[name].dtype != b[name].dtype or a[name].shape != b[name].shape:
                lines.append(
                    f"{file}: {name} is {a[name].dtype} {tuple(a[name].shape)} and {b[name].dtype} "
                    f"{tuple(b[name].shape)}"
                )
            elif not torch.equal(a[name], b[name]):
                most = (a[name].double() - b[name].double()).abs().max().item()
                lines.append(f"{file}: {name} differs by up to {most:.3g}")
    return count, lines


@click.command(help=__doc__)
@click.argument("before", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("after", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(before: Path, after: Path) -> None:
    count, lines = differences(before, after)
    for line in lines:
        click.echo(line)
    click.echo(f"{count} tensors, {len(lines)} differ")
    raise SystemExit(1 if lines or not count else 0)


if __name__ == "__main__":
    main()
