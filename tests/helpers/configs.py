"""Reading settings from a TOML file."""

from pathlib import Path

from spectag.config.base import parse_config, read_toml


def read_config(path, model):
    return parse_config(read_toml(Path(path)), model, source=str(path))
