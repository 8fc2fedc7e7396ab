"""Compiles MakeHuman's data, and the scans' if given, into one small file, which training takes along:

python -m pmv.training.heads.compile --makehuman makehuman/data --scans ICT-FaceKit --out heads.npz
"""

import argparse
import logging
from pathlib import Path

from pmv.training.heads.assets import HeadAssets


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m pmv.training.heads.compile", description="Compile heads' assets.")
    parser.add_argument("--makehuman", type=Path, required=True, help="MakeHuman checkout or its data folder (CC0)")
    parser.add_argument("--scans", type=Path, help="checkout of ICT-FaceKit (MIT); without it faces are MakeHuman's")
    parser.add_argument("--out", type=Path, required=True, help="the compiled .npz")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    HeadAssets.load(options.makehuman, options.scans).save(options.out)
    print(f"{options.out}: {options.out.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
