"""The public surface: no name vanishes and no signature changes unnoticed.

`tests/api_surface.json` lists what `pmv` offers at its front door and every public function, class and method of its
rooms with its signature. After a change that is meant: ``pytest tests/test_api.py --write``, and look at the difference
as its users will.
"""

import ast
import importlib
import json
from pathlib import Path

import pytest

import pmv
from tests.conftest import ROOT

SURFACE = ROOT / "tests" / "api_surface.json"
ROOMS = ("geometry", "pictures", "fitting", "generators", "portrait", "files", "pipeline", "stages", "apps")


def public(name: str) -> bool:
    return not name.startswith("_") or name == "__call__"


def signature(node: ast.FunctionDef) -> str:
    """As it stands in the source: what Python makes of it differs from version to version."""
    returns = "" if node.returns is None else f" -> {ast.unparse(node.returns)}"
    kinds = {ast.unparse(d) for d in node.decorator_list} & {
        "property",
        "cached_property",
        "classmethod",
        "staticmethod",
    }
    return " ".join([*sorted(kinds), f"({ast.unparse(node.args)}){returns}"])


def members(node: ast.ClassDef) -> dict[str, str]:
    """Constructor, public methods, and annotated attributes: the fields of dataclasses and protocols."""
    found = {}
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and (public(part.name) or part.name == "__init__"):
            found[part.name] = signature(part)
        elif isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and public(part.target.id):
            default = "" if part.value is None else f" = {ast.unparse(part.value)}"
            found[part.target.id] = ast.unparse(part.annotation) + default
    return found


def module_surface(path: Path) -> dict[str, str | dict[str, str]]:
    found: dict[str, str | dict[str, str]] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and public(node.name):
            found[node.name] = signature(node)
        elif isinstance(node, ast.ClassDef) and public(node.name):
            found[node.name] = members(node)
    return found


def modules() -> dict[str, Path]:
    """Module name → file, of the library; the command line's surface is its help."""
    package = ROOT / "pmv"
    files = [package / "errors.py", package / "inversion.py"]
    files += [path for room in ROOMS for path in sorted((package / room).glob("*.py"))]
    named = {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}
    return {name: path for name, path in named.items() if module_surface(path)}


def surface() -> dict:
    front = {name: f"{getattr(pmv, name).__module__}.{name}" for name in pmv.__all__}
    return {"pmv": front, **{name: module_surface(path) for name, path in modules().items()}}


def flat(value: dict, prefix: str = "") -> dict[str, str]:
    lines: dict[str, str] = {}
    for name, part in value.items():
        lines |= flat(part, f"{prefix}{name} ") if isinstance(part, dict) else {prefix + name: part}
    return lines


def test_the_surface_is_what_was_written_down(write: bool):
    now = surface()
    if write:
        SURFACE.write_text(json.dumps(now, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, after = flat(json.loads(SURFACE.read_text(encoding="utf-8"))), flat(now)
    changes = [f"- {name}: {text}" for name, text in before.items() if after.get(name) != text]
    changes += [f"+ {name}: {text}" for name, text in after.items() if before.get(name) != text]
    assert not changes, "\n".join(["if it is meant, pytest tests/test_api.py --write", *changes])


def test_what_is_written_down_can_be_imported():
    for name, entries in json.loads(SURFACE.read_text(encoding="utf-8")).items():
        module = importlib.import_module(name)
        assert not [entry for entry in entries if not hasattr(module, entry)], name


@pytest.mark.parametrize("name", ["Camera", "PmvError", "load_generator", "load_inversion", "read_image"])
def test_names_that_others_import_stay(name: str):
    """From outside the repository: whatever moves, these do not."""
    assert name in pmv.__all__ and callable(getattr(pmv, name))
    assert importlib.import_module("pmv.generators").load_generator is pmv.load_generator
    with pytest.raises(AttributeError, match="nose"):
        pmv.nose  # noqa: B018
