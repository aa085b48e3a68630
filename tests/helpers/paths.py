"""Folders of the project."""

from pathlib import Path

TESTS = Path(__file__).parents[1]
PROJECT = TESTS.parent
SHARED = PROJECT.parent / "shared"
"""Sounds and weights outside the project. Tests that need them are skipped if they are missing."""
