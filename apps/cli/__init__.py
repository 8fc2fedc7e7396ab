"""The command line: one module a command, which parses, asks and prints. What the commands do stands in `pmv.apps` and
below, and can be called without them.

`python run_inversion.py IMAGE` and `pmv invert IMAGE` are the same command; `pmv --help` lists all. No module here
imports PyTorch or anything that does at its top: --help and mistakes on the command line answer at once.
"""

# As attributes of this package, functions take the places of modules of the same name: `pmv.apps.cli.invert` is the
# command. A module is only ever named in full by an import, as here.
from pmv.apps.cli.console import execute
from pmv.apps.cli.invert import invert
from pmv.apps.cli.main import cli, main

__all__ = ["cli", "execute", "invert", "main"]
