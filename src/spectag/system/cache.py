"""The cache folder for files that spectag can compute or download again."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SPECTAG_CACHE"


def cache_folder() -> Path:
    """The folder that SPECTAG_CACHE names; by default, the user's cache folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder).expanduser() if folder else platformdirs.user_cache_path("spectag")
