"""The style sheet of all pages."""

from importlib.resources import files


def shared_style() -> str:
    """The style sheet of all pages, with the design tokens."""
    return files("spectag.reporting").joinpath("templates", "style.css").read_text("utf-8")
