"""Bundles of format version 1, rewritten for this version.

Version 1 has the labels, feature extraction, networks, calibration and out-of-fold predictions in the form of today. So
nothing is fitted again, and the model gives the same probabilities. New are the SHA-256 of its files, the names of some
settings in recipe.toml, and the apostrophe before formulas in tables. What only a training can measure stays unknown:
novelty, the properties of the training sounds, windows of clips and their thresholds.
"""

import csv
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from spectag.config.base import parse_config, read_toml, to_toml
from spectag.config.recipe import Recipe
from spectag.errors import BundleError, ConfigError
from spectag.models.bundle import (
    CARD_FILE,
    FORMAT_VERSION,
    INFO_FILE,
    RECIPE_FILE,
    BundleInfo,
    clean_up_after_kills,
    read_info,
    replace_when_complete,
    write_info,
)
from spectag.models.model_card import render_card
from spectag.models.out_of_fold import CALIBRATION_FILE, OUT_OF_FOLD_COLUMNS, OUT_OF_FOLD_FILE, read_out_of_fold
from spectag.models.tagger import Tagger
from spectag.models.versioned_json import MAX_JSON_BYTES, parse_json, problem_of
from spectag.system.atomic_files import unfinished_file
from spectag.system.file_errors import reason_of
from spectag.system.output import csv_writer, escape_formula
from spectag.system.progress import Log, no_log
from spectag.system.regular_files import hidden_or_irregular, irregular, read_regular_file

_TRAIN_AGAIN = "train the model again: spectag train MANIFEST -o MODEL"
_RENAMED = {  # settings of version 1 by their table, "" for those without one
    "": {
        "keep": "final_model",
        "mixes": "n_mixed_clips",
        "split": "validation_split",
        "valid_rows": "validation_split",
        "valid_share": "validation_fraction",
    },
    "augment": {
        "background_share": "background_fraction",
        "masks": "spec_augment",
        "off_share": "disable_last_fraction",
    },
    "finetune": {
        "average": "weight_averaging",
        "head_first": "linear_probe_first",
        "head_rate": "head_lr_multiplier",
        "trained_stages": "unfreeze",
        "warmup": "warmup_fraction",
    },
    "noisy_labels": {"own_head": "separate_head"},
}
_LATER_LBFGS_SETTINGS = {"classifier": "logistic", "name_prior": False, "clip_windows": False}  # as version 1 trained


def upgrade(model: str | Path, *, output: str | Path | None = None, in_place: bool = False, log: Log = no_log) -> Path:
    """Rewrite a model of an earlier format version for this version of spectag. It gives the same probabilities.

    Parameters
    ----------
    model : str or Path
        Folder of the model.
    output : str or Path, optional
        Folder for the new model.
    in_place : bool
        Replace the old model.
    log : Log
        Called with what the model lacks, compared with a new one.

    Returns
    -------
    Path
        Folder of the new model.

    Raises
    ------
    ConfigError
        Unless one of `output` and `in_place` is given.
    BundleError
        If there is no model, it is of this version already or of one that cannot be upgraded, it is damaged, or the new
        one cannot be written. The old model does not change.
    """
    bundle = Path(model).resolve()
    if (output is not None) == in_place:
        raise ConfigError("give either output (-o), a folder for the new model, or in_place, to replace the old one")
    if output is not None and Path(output).exists():
        raise BundleError(f"{output}: already exists; choose another folder, or replace {model} with --in-place")
    destination = bundle if output is None else Path(output)
    clean_up_after_kills(destination)
    info = _upgraded_info(bundle / INFO_FILE, str(model))
    try:
        with replace_when_complete(destination) as folder:
            ignored = irregular if output is None else hidden_or_irregular
            shutil.copytree(bundle, folder, ignore=ignored, dirs_exist_ok=True)
            write_info(folder, info)
            for name in (OUT_OF_FOLD_FILE, CALIBRATION_FILE):
                _escape_formulas(folder / name)
                read_out_of_fold(folder, name)
            _upgrade_recipe(folder / RECIPE_FILE, log)
            (folder / CARD_FILE).write_text(render_card(info, destination.name), encoding="utf-8")
            Tagger(folder, device="cpu").open()
    except OSError as error:
        raise BundleError(f"{output or model}: cannot write the model: {reason_of(error)}") from error
    log("the probabilities are those of before; novelty, frames and thresholds of windows need a new training")
    if info.labels_missing_goal:
        log(f"thresholds for {info.threshold_goal} were fitted without confidence; fit them again: spectag calibrate")
    return Path(output or model)


def _upgraded_info(path: Path, model: str) -> BundleInfo:
    """The content of a spectag.json of version 1, as version 2 has it.

    Raises
    ------
    BundleError
        If it has another version, or is damaged.
    """
    try:
        values = parse_json(read_regular_file(path, max_bytes=MAX_JSON_BYTES).decode("utf-8"))
    except (OSError, ValueError):
        read_info(model)  # raises an error that says what is wrong
        raise
    found = values.get("format_version") if isinstance(values, dict) else None
    if found == FORMAT_VERSION:
        raise BundleError(f"{model}: has format version {found} already; there is nothing to upgrade")
    if not isinstance(found, int) or found < 1:
        what = "a model without a format version" if found is None else f"format version {found!r:.40}"
        raise BundleError(f"{path}: {what} cannot be upgraded; {_TRAIN_AGAIN}")
    if found != 1:
        read_info(model)
    try:
        info = BundleInfo.model_validate(values | {"format_version": FORMAT_VERSION})
    except ValidationError as error:
        raise BundleError(f"{path}: cannot be upgraded: damaged{problem_of(error)}; {_TRAIN_AGAIN}") from error
    fitted = [label for label, is_fitted in zip(info.labels, info.thresholds_fitted, strict=True) if is_fitted]
    unproven = () if info.threshold_goal.kind == "f1" else tuple(fitted)
    versions = info.versions | {"upgraded_by": f"spectag {version('spectag')}"}
    return info.model_copy(update={"labels_missing_goal": unproven, "versions": versions})


def _escape_formulas(path: Path) -> None:
    """Put the apostrophe before file names, groups and labels that look like formulas, as tables of today have it."""
    if not path.is_file():
        return
    names = [index for index, column in enumerate(OUT_OF_FOLD_COLUMNS) if column in ("fname", "group")]
    with (
        path.open(encoding="utf-8", errors="backslashreplace", newline="") as file,
        unfinished_file(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as out,
    ):
        write_row = csv_writer(out, exact=True)
        reader = csv.reader(file)
        write_row([escape_formula(column) for column in next(reader, [])])
        for row in reader:
            write_row([escape_formula(field) if index in names else field for index, field in enumerate(row)])


def _upgrade_recipe(path: Path, log: Log) -> None:
    """Write recipe.toml with the names of today; if that is not possible, it stays as it is."""
    if not path.is_file():
        return
    try:
        recipe = parse_config(_upgraded_settings(read_toml(path)), Recipe, source=path.name)
    except ConfigError as error:
        log(f"{path.name} stays as it was, and does not fit this version: {error}")
        return
    path.write_text(to_toml(recipe), encoding="utf-8")


def _upgraded_settings(old: dict[str, Any]) -> dict[str, Any]:
    members = [_renamed(member) for member in old.get("members", ())]
    values = {"find_shared_audio": False} | _renamed(old) | ({"members": members} if members else {})
    is_lbfgs = values.get("mode", "frozen") == "frozen" and values.get("optimizer", "lbfgs") == "lbfgs"
    return (_LATER_LBFGS_SETTINGS if members or is_lbfgs else {}) | values


def _renamed(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a recipe or a member by their names of today."""
    values = {_RENAMED[""].get(name, name): value for name, value in settings.items()}
    if values.get("final_model") == "folds":
        values["final_model"] = "ensemble"
    for table, names in _RENAMED.items():
        if isinstance(values.get(table), dict):
            values[table] = {names.get(name, name): value for name, value in values[table].items()}
    return values
