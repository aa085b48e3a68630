"""The documentation is complete, up to date, and uses public names only."""

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import spectag
from docs.pages import PAGES, blocks, page_name
from helpers.paths import PROJECT
from spectag.cli.app import app

CLI_REFERENCE = PROJECT / "docs" / "reference" / "cli.md"
PYTHON_REFERENCE = PROJECT / "docs" / "reference" / "python.md"
PACKAGES = [
    "audio",
    "config",
    "curation",
    "data",
    "evaluation",
    "findings",
    "models",
    "reporting",
    "scoring",
    "serving",
    "system",
    "tagging",
    "training",
]
FILE_NAMES = {"spectag.json", "spectag.exe", "spectag.bat", "spectag.command", "spectag.desktop"}
"""Not names of Python, though they look like some."""
MARK = re.compile(r"setup|needs weights|skip \([^()]+\)")


def commands() -> Iterator[str]:
    for name in app:
        if not name.startswith("-"):
            yield name
            yield from (f"{name} {sub}" for sub in app[name] if not sub.startswith("-"))


def section(command: str) -> str:
    """The part of the reference about a command."""
    found = re.search(
        rf"^#+ spectag {command}\n(.*?)(?=^##|\Z)", CLI_REFERENCE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert found, f"{page_name(CLI_REFERENCE)} has no section about spectag {command}"
    return found[1]


@pytest.mark.parametrize("command", list(commands()))
def test_command_and_its_options_are_in_the_reference(command):
    text = section(command)
    *parents, name = command.split()
    parent = app[parents[0]] if parents else app
    for argument in parent[name].assemble_argument_collection():
        for option in argument.names if argument.show else ():
            assert re.search(rf"[`, ]{re.escape(option)}[`,. ]", text), option


def test_command_reference_is_up_to_date():
    script = runpy.run_path(str(PROJECT / "docs" / "write_cli_reference.py"))
    assert CLI_REFERENCE.read_text(encoding="utf-8") == script["reference"](), "run python docs/write_cli_reference.py"


def shell_commands(page: Path) -> Iterator[list[str]]:
    """The words of each spectag command in the sh examples of a page, also of those that cannot run in a test."""
    for block in blocks(page):
        if block.language == "sh":
            for line in block.code.replace("\\\n", " ").splitlines():
                words = shlex.split(line.replace("$SLURM_ARRAY_TASK_ID", "1"), comments=True)
                starts = [index + 1 for index, word in enumerate(words) if word == "spectag"]
                for start in starts:
                    end = next((n for n in range(start, len(words)) if words[n] in ("|", "&&", "spectag")), len(words))
                    yield words[start:end]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_commands_in_the_examples_are_valid(page):
    for words in shell_commands(page):
        if "--config" in words:  # an option of all commands
            place = words.index("--config")
            words = words[:place] + words[place + 2 :]
        if "..." not in words:
            command, *_ = app.parse_args(words, exit_on_error=False, print_error=False)
            assert callable(command), words


def is_public(name: str) -> bool:
    """Whether a dotted name, such as spectag.audio.read_audio, is a package, a public name or an attribute of one."""
    first, *rest = name.split(".")[1:]
    if first in spectag.__all__:
        thing = getattr(spectag, first)
    elif first in PACKAGES:
        package = importlib.import_module(f"spectag.{first}")
        if not rest:
            return True
        if rest[0] not in package.__all__:
            return False
        thing = getattr(package, rest.pop(0))
    else:
        return first == "cli" and not rest
    for attribute in rest:
        if not hasattr(thing, attribute):
            return False
        thing = getattr(thing, attribute)
    return True


def imported_names(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "spectag":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_page_uses_public_names_only(page):
    text = page.read_text(encoding="utf-8")
    names = set(re.findall(r"(?<![\w./-])spectag(?:\.[A-Za-z]\w*)+(?![\w/])", text)) - FILE_NAMES
    for block in blocks(page):
        if block.language == "python":
            names.update(imported_names(block.code))
    assert [name for name in sorted(names) if not is_public(name)] == []


@pytest.mark.parametrize("package", ["", *PACKAGES])
def test_public_name_is_in_the_python_reference(package):
    text = PYTHON_REFERENCE.read_text(encoding="utf-8")
    home = importlib.import_module(f"spectag.{package}" if package else "spectag")
    names = set(home.__all__) - (set(spectag.__all__) if package else set())
    missing = [name for name in sorted(names) if f"`{home.__name__}.{name}`" not in text]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_marks_of_examples_are_known(page):
    text = page.read_text(encoding="utf-8")
    outside_blocks = re.sub(r"^```\w+\n.*?^```$", "```", text, flags=re.MULTILINE | re.DOTALL)
    n_comments = len(re.findall(r"<!-- test:", outside_blocks))
    marks = [block.mark for block in blocks(page) if block.mark]
    assert len(marks) == n_comments  # each comment stands directly before its block
    assert [mark for mark in marks if not MARK.fullmatch(mark)] == []


def test_links_between_pages_lead_to_files():
    def targets(page: Path) -> Iterator[Path]:
        for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in link:
                yield page.parent / link

    missing = [f"{page_name(page)}: {target.name}" for page in PAGES for target in targets(page) if not target.exists()]
    assert missing == []


def test_readme_links_every_guide_tutorial_reference_and_explanation():
    _, _, listed = (PROJECT / "README.md").read_text(encoding="utf-8").partition("\n## Documentation\n")
    folders = ("tutorials", "how-to", "reference", "explanation")
    pages = [page_name(page) for page in PAGES if page.parent.name in folders]
    assert [page for page in pages if f"]({page})" not in listed] == []
