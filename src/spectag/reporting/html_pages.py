"""Pages as single HTML files: Jinja2 templates, one style sheet, and a policy that lets only their own script run."""

import base64
import hashlib
import math
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spectag.errors import ConfigError, DataError
from spectag.reporting import number_texts
from spectag.reporting.scales import Scale
from spectag.reporting.shared_style import shared_style
from spectag.system.atomic_files import unfinished_file

_TEMPLATES = Environment(
    loader=PackageLoader("spectag.reporting"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["Scale"] = Scale
_TEMPLATES.filters["is_finite"] = math.isfinite
_TEMPLATES.filters |= {
    function.__name__: function
    for function in (
        number_texts.difference_interval_text,
        number_texts.difference_text,
        number_texts.interval_text,
        number_texts.metric_name,
        number_texts.percent,
        number_texts.percent_of,
        number_texts.px,
        number_texts.quantity,
        number_texts.score_text,
        number_texts.tick_text,
    )
}


def render(template: str, **values: Any) -> str:
    """HTML of a template. Every value is escaped, except the results of other templates."""
    return _TEMPLATES.get_template(template).render(values)


def render_page(template: str, scripts: Sequence[str], *, connects: bool = False, **values: Any) -> str:
    """HTML of a whole page, with the style sheet, the scripts and the Content-Security-Policy in it.

    Parameters
    ----------
    template : str
        A template that extends `base.html`.
    scripts : sequence of str
        JavaScript files of the templates folder, run in this order.
    connects : bool
        Whether the page asks the server that it comes from; otherwise it can connect to nothing.
    **values
        What the template shows.
    """
    script = "\n" + "\n".join(map(_read, scripts))
    style, safe_script = Markup(shared_style()), Markup(script)  # nosec B704 - files of this package
    policy = _policy(script) + ("; connect-src 'self'" if connects else "")
    return render(template, style=style, script=safe_script, policy=policy, **values)


def check_page_path(path: Path) -> None:
    """Raise a ConfigError if the suffix is not that of an HTML file."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"{path}: the page is an HTML file; change the suffix to .html")


def write_page(path: Path, text: str) -> None:
    """Write a page completely or not at all; a DataError if that fails."""
    try:
        with unfinished_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise DataError(f"{path}: the page can't be written: {error.strerror or error}") from error


def _read(name: str) -> str:
    return files("spectag.reporting").joinpath("templates", name).read_text("utf-8")


def _policy(script: str) -> str:
    """Content-Security-Policy: nothing is loaded from elsewhere, and no script runs except this one."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
