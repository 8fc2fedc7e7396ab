"""Which part may know which: the contracts of pyproject.toml, and what they cannot say."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import grimp

from tests.conftest import ROOT

LINKED = ("apps", "stages", "training")
"""Folders of the checkout that are parts of the package, reached by links in pmv/."""


def python_files() -> list[Path]:
    folders = ("pmv", *LINKED, "benchmarks", "examples", "tests")
    return [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]


def imported(path: Path, everywhere: bool = True) -> set[str]:
    """Absolute names of the modules that a file imports, or only those that it imports when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if everywhere else tree.body
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def test_the_contracts_are_kept():
    # in a process of its own: it sets up logging, which silences every logger that is there already
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_module_is_part_of_a_circle():
    """Between packages the contract looks; here also between a package and its own modules."""
    graph = grimp.build_graph("pmv", cache_dir=None)
    imports = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules if name != "pmv"}
    assert len(imports) > 100
    # raises CycleError, which names the circle
    graphlib.TopologicalSorter(imports).prepare()


def test_linked_folders_are_imported_as_parts_of_the_package():
    """One file under two names would be two modules, with two sets of classes."""
    files = python_files()
    assert len(files) > 150
    wrong = {str(p.relative_to(ROOT)): n for p in files for n in imported(p) if n.split(".")[0] in LINKED}
    assert not wrong


def test_cuda_s_rasteriser_is_imported_only_where_it_is_used():
    raster = ROOT / "pmv" / "geometry" / "raster.py"
    assert any(name.startswith("nvdiffrast") for name in imported(raster))
    assert not any(name.startswith("nvdiffrast") for name in imported(raster, everywhere=False))


def test_the_front_door_imports_nothing_before_it_is_asked():
    """The contracts leave out the imports of pmv/__init__.py, because they are made at first use."""
    code = (
        "import pmv, sys; early = [m for m in sys.modules if m.startswith(('pmv.', 'torch', 'numpy'))]; "
        "assert not early, early; assert set(pmv.__all__) <= set(dir(pmv)); "
        "assert pmv.PmvError.__module__ == 'pmv.errors' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
