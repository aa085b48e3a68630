"""Imports point one way: down to a lower floor, or to the left on the same one."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import spectag

FLOORS = (
    "errors progress stopwatch config tag_config listen_config scene_config learning_config recipe labels "
    "label_colors files",
    "decoding audio audio_stream windows locations live_sound microphone mel image synth metrics bootstrap "
    "reliability thresholds calibration_curves calibration scores blend noisy_labels timeline history invert "
    "embedding choice label_doubts",
    "work_folder workers download manifest split bank png_export front_end clip_inputs demo_data",
    "catalogue weights bundle held_out runtime torch_file card published",
    "tag formats hearing sources results journal bulk ray_engine live scenes inspection validation task search_space "
    "split_manifest prepare predict unseen_clips prediction_table evaluation activation sound_index "
    "near_duplicates review pool suggest",
    "backbones losses image_augment augment tagger stages head_fit gradient_fit onnx_calibration export weightless "
    "features dataset mixes frozen_fit member processes schedule whole_clips finetune finetune_member packing ensemble "
    "tensorboard_log train rate_finder recalibrate",
    "plots training_plots augment_html augment_page tune explain report review_page demo __init__ cli __main__",
)
PLACES = {name: (floor, place) for floor, names in enumerate(FLOORS) for place, name in enumerate(names.split())}
TRAINING_FLOOR = 5
TRAINING_PACKAGES = {"torch", "timm", "torchvision", "onnx", "safetensors", "accelerate", "tensorboard"}

PACKAGE = Path(spectag.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(file: Path) -> str:
    """The module, or the package of several files, that a file belongs to."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that a piece of code imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "name the module in full: from spectag.audio import ..."
            if node.module == "spectag":
                yield from (f"spectag.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def own_imports(file: Path) -> set[str]:
    """Modules of spectag, other than its own, that a file imports."""
    names = [name.split(".") for name in imports(parse(file)) if name.split(".")[0] == "spectag"]
    modules = {parts[1] if len(parts) > 1 and parts[1] in PLACES else "__init__" for parts in names}
    return modules - {module_of(file)}


def run_on_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements at module level, without those for type checkers."""
    for statement in tree.body:
        is_for_checkers = isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"
        if not is_for_checkers and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement


def parse(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"))


def test_every_module_has_its_place_on_a_floor():
    homeless = {module_of(file) for file in FILES} - set(PLACES)
    assert not homeless, f"give {sorted(homeless)} a place in FLOORS: right of, or above, all that they import"


def test_every_place_has_its_module():
    gone = set(PLACES) - {module_of(file) for file in FILES}
    assert not gone, f"take {sorted(gone)} out of FLOORS"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_to_lower_floors_or_to_the_left(file):
    place = PLACES[module_of(file)]
    wrong = {name for name in own_imports(file) if PLACES[name] > place}
    assert not wrong, f"{module_of(file)} imports {sorted(wrong)}, which lie above it or to its right in FLOORS"


def test_only_the_training_floor_imports_torch_and_its_company():
    for file in FILES:
        packages = {name.split(".")[0] for name in imports(parse(file))} & TRAINING_PACKAGES
        floor = PLACES[module_of(file)][0]
        assert not packages or floor == TRAINING_FLOOR, f"{file.name} imports {packages} on floor {floor}"


def test_matplotlib_is_imported_only_where_it_draws():
    for file in FILES:
        early = {name.split(".")[0] for statement in run_on_import(parse(file)) for name in imports(statement)}
        assert "matplotlib" not in early, f"{file.name} imports matplotlib before it is needed"


def test_nobody_imports_the_command_line_but_its_own_entry():
    users = {module_of(file) for file in FILES if "cli" in own_imports(file)}
    assert users <= {"__main__"}


def test_tagging_loads_nothing_of_training():
    script = f"""
import importlib, sys
for name in ("spectag", "spectag.runtime", "spectag.tag"):
    importlib.import_module(name)
    loaded = {TRAINING_PACKAGES | {"matplotlib"}} & set(sys.modules)
    assert not loaded, f"importing {{name}} loads {{sorted(loaded)}}"
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
