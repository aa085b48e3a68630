"""Every sh and python example of the documentation runs, in the folder that the first-run tutorial creates."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from docs.pages import PAGES, Block, blocks, page_name
from helpers.paths import PROJECT, SHARED

pytestmark = pytest.mark.slow

FIRST_RUN = PROJECT / "docs" / "tutorials" / "first-run.md"
WITH_REPORT = "docs/how-to/evaluate.md"  # elsewhere `spectag evaluate` writes no report, which takes a minute
WITHOUT_EXAMPLES = {"docs/benchmarks.md"}  # its commands take hours, and some need data that is not part of the project


def runnable(page: Path) -> list[Block]:
    """The examples of a page that can run here."""
    has_weights = (SHARED / "weights").is_dir()
    return [
        block
        for block in blocks(page)
        if block.language in ("sh", "python") and (block.mark == "" or (block.mark == "needs weights" and has_weights))
    ]


def run_block(block: Block, folder: Path, page: str) -> Path:
    """Run an example in a folder, and return the folder in which the next one runs."""
    after = folder / ".working-folder"
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    code = block.code if page == WITH_REPORT else re.sub(r"(spectag evaluate .*-o \S+)", r"\1 --no-report", block.code)
    shell = ["bash", "-euo", "pipefail", "-c", f'{code}\npwd > "$AFTER"']
    done = subprocess.run(
        shell if block.language == "sh" else [sys.executable, "-c", block.code],
        cwd=folder,
        env=os.environ | {"PATH": scripts, "AFTER": str(after), "SPECTAG_WEIGHTS": str(SHARED / "weights")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (
        f"{page}, line {block.line}:\n{block.code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return Path(after.read_text(encoding="utf-8").strip()) if block.language == "sh" else folder


@pytest.fixture(scope="module")
def example_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first-run tutorial creates."""
    folder = tmp_path_factory.mktemp("examples")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPECTAG_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        for block in blocks(FIRST_RUN):
            if block.mark == "setup":
                run_block(block, folder, page_name(FIRST_RUN))
    shutil.copytree(PROJECT / "configs", folder / "configs")
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page_name(page) not in WITHOUT_EXAMPLES], ids=page_name)
def test_examples_of_a_page_run(page: Path, example_folder: Path, tmp_path: Path) -> None:
    examples = runnable(page)
    if not examples:
        pytest.skip("this page has no example that can run here")
    folder = tmp_path / "examples"
    shutil.copytree(example_folder, folder)
    for block in examples:
        folder = run_block(block, folder, page_name(page))
