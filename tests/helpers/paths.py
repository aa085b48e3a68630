"""Folders of the project."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
PROJECT = TESTS.parent
SHARED = PROJECT.parent / "shared"
"""Sounds and weights that are not part of the project; tests that need them are skipped where they are absent."""
