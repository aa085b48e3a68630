"""The packages: each imports only the packages above it, and a name means one thing."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, walk_packages

import pytest

import spectag

ORDER = [
    "system",
    "config",
    "audio",
    "scoring",
    "data",
    "models",
    "tagging",
    "training",
    "evaluation",
    "curation",
    "reporting",
    "findings",
    "serving",
    "cli",
]
BELOW = {"array_types", "errors"}  # modules that every package may use
SIBLINGS = {frozenset({"tagging", "training"})}  # neither imports the other
TRAINING_LIBRARIES = {"torch", "timm", "torchvision", "accelerate", "tensorboard", "transformers"}
TORCH_PACKAGES = ("networks", "inputs", "members", "setup")  # of training; heads and tuning do not need torch

ROOT = Path(spectag.__file__).parent
FILES = sorted(path for package in ORDER for path in (ROOT / package).rglob("*.py"))


def package_of(file: Path) -> str:
    return file.relative_to(ROOT).parts[0]


def imports(file: Path) -> Iterator[str]:
    """Dotted names of everything that a file imports, also inside functions and for type checkers."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "name the module in full: from spectag.audio.mel import ..."
            names = [f"spectag.{alias.name}" for alias in node.names]
            yield from names if node.module == "spectag" else [str(node.module)]


def libraries(file: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(file)}


def test_every_module_belongs_to_a_package():
    assert {module.name for module in iter_modules(spectag.__path__)} == {*ORDER, *BELOW, "__main__"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_package_imports_only_packages_above_it(file):
    package = package_of(file)
    allowed = {*BELOW, *ORDER[: ORDER.index(package) + 1]}
    imported = {name.split(".")[1] for name in imports(file) if name.startswith("spectag.")}
    assert imported <= allowed
    assert not any({package, other} in SIBLINGS for other in imported - {package})


def test_only_four_packages_of_training_import_torch_and_its_companions():
    for file in FILES:
        found = libraries(file) & TRAINING_LIBRARIES
        places = file.relative_to(ROOT).parts[:2]
        assert not found or places in [("training", name) for name in TORCH_PACKAGES], f"{file} imports {found}"


def test_no_public_class_or_function_is_defined_in_two_modules():
    homes: dict[str, list[str]] = {}
    for file in FILES:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    assert {name: files for name, files in homes.items() if len(files) > 1} == {}


def test_no_child_of_a_package_has_the_name_of_a_public_function():
    for package in [spectag, *map(import_module, _package_names())]:
        children = {module.name for module in iter_modules(package.__path__)}
        assert not children & set(getattr(package, "__all__", ())), package.__name__


def _package_names() -> list[str]:
    return [module.name for module in walk_packages(spectag.__path__, "spectag.") if module.ispkg]


@pytest.mark.parametrize("package", ["spectag", *(f"spectag.{name}" for name in ORDER)])
def test_every_public_name_exists(package):
    module = import_module(package)
    assert module.__all__
    for name in module.__all__:
        assert getattr(module, name).__name__ == name


def test_matplotlib_is_imported_only_inside_functions():
    for file in FILES:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        top_level = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not any("matplotlib" in ast.unparse(node) for node in top_level), file


def test_only_the_entry_point_imports_the_command_line():
    users = {package_of(file) for file in FILES if any(name.startswith("spectag.cli") for name in imports(file))}
    assert users == {"cli"}


SLOW_LIBRARIES = {"matplotlib", "onnx", "networkx", "scipy.sparse.csgraph", "mutagen", "uvicorn", "starlette"}


def test_tagging_does_not_import_slow_libraries_that_it_does_not_need():
    script = f"""
import sys, spectag
import spectag.tagging.batch
spectag.load, spectag.tag, spectag.Tagger
print(sorted({TRAINING_LIBRARIES | SLOW_LIBRARIES} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
