"""`python run_inversion.py PHOTO …` is `pmv invert PHOTO …`, from a checkout."""

from pmv.apps.cli import execute, invert

if __name__ == "__main__":
    execute(invert)
