"""The pages of the documentation, and their code blocks."""

import re
from dataclasses import dataclass
from pathlib import Path

from helpers.paths import PROJECT

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?:<!-- test: (?P<mark>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Block:
    """A code block. The mark is the comment before it, such as "skip (needs a microphone)"."""

    language: str
    code: str
    mark: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], found["mark"] or "", text.count("\n", 0, found.start("code")) + 1)
        for found in _BLOCK.finditer(text)
    ]


def page_name(page: Path) -> str:
    return page.relative_to(PROJECT).as_posix()
