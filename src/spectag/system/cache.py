"""Where spectag keeps what it can make again: spectrograms, features, downloaded weights."""

import os
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "SPECTAG_CACHE"


def cache_folder() -> Path:
    """Where spectag keeps what it can make or fetch again: SPECTAG_CACHE, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("spectag")
