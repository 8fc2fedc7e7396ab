"""Makes the file that is used of one chain or both: `python -m pmv.training.encoder.join --visible FOLDER [--whole
FOLDER] --out FILE`."""

import argparse
from pathlib import Path

import torch

from pmv.encoders.dual import DualEncoder, save_encoders
from pmv.files.artifacts import read_json
from pmv.training.encoder.__main__ import load_teacher
from pmv.training.encoder.trainer import VISIBLE, WHOLE, average_of


def join(visible: Path, whole: Path | None, generator_name: str, out: Path) -> None:
    """Writes the averaged encoders, and what is told of their training.

    Args:
        visible, whole: folders that `EncoderTrainer.save` wrote; the second may be left out. generator_name: what both
            were trained for, see `load_teacher`.

    Raises:
        InputError: a folder holds no state of an encoder of this generator.
    """
    generator = load_teacher(generator_name, torch.device("cpu"))
    folders = {VISIBLE: visible} | ({WHOLE: whole} if whole is not None else {})
    encoder = DualEncoder(*(average_of(folder, generator) for folder in folders.values()))
    told = {name: read_json(folder / "state.json") for name, folder in folders.items()}
    training = {name: {key: value[key] for key in ("config", "pieces", "pictures")} for name, value in told.items()}
    save_encoders(out, encoder, generator, {"training": training})


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pmv.training.encoder.join", description="Join two encoders.")
    for name in ("visible", "whole", "out"):
        parser.add_argument(f"--{name}", type=Path, required=name != "whole")
    parser.add_argument("--generator", default="heads", help="name, file, or a folder with a chain's state")
    options = parser.parse_args(arguments)
    join(options.visible, options.whole, options.generator, options.out)


if __name__ == "__main__":
    main()
