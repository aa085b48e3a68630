"""What a person does on the page in a browser, and what is asked of every view."""

import os
from pathlib import Path
from typing import Any

from helpers.browser import Page

AXE = os.environ.get("SPECTAG_TEST_AXE", "")
"""Path of axe.min.js, from `npm pack axe-core`."""
_NODES = "(rule) => [rule.id, rule.nodes.map((node) => [node.html, node.failureSummary])]"
_RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']}"


def click_button(page: Page, text: str, within: str = "body", *, is_whole: bool = False, seconds: float = 10) -> None:
    """Click the first button that is shown and has a text, or whose label is the whole text."""
    has_text = f"(one.ariaLabel ?? one.textContent) === {text!r}" if is_whole else f"one.textContent.includes({text!r})"
    buttons = f"[...document.querySelectorAll({within!r})].flatMap((one) => [...one.querySelectorAll('button')])"
    found = f"{buttons}.find((one) => one.checkVisibility() && !one.disabled && {has_text})"
    page.wait(found, seconds)
    page.run(f"{found}.click()")


def choose_sound(page: Page, index: int) -> None:
    """Choose a sound in the list of the Tag view."""
    page.run(f"document.querySelectorAll('.sounds .name')[{index}].click()")


def text_of(page: Page, selector: str) -> Any:
    """The text of an element; None if there is none."""
    return page.run(f"document.querySelector({selector!r})?.textContent")


def set_field(page: Page, selector: str, value: object) -> None:
    """Change the value of a field, with its events."""
    page.run(f"""(() => {{
        const field = document.querySelector({selector!r});
        field.value = {str(value)!r};
        for (const name of ['input', 'change']) field.dispatchEvent(new Event(name, {{ bubbles: true }}));
    }})()""")


def unforeseen(page: Page, *foreseen: str) -> list[str]:
    """The errors and warnings on the console, without those that contain one of some words."""
    return [line for line in page.console if not any(words in line for words in foreseen)]


def barriers(page: Page) -> Any:
    """What axe-core finds on the page; needs AXE."""
    page.run(Path(AXE).read_text(encoding="utf-8"))
    return page.run(f"axe.run(document, {_RULES}).then(({{ violations }}) => violations.map({_NODES}))")
