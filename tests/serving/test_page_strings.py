"""The texts of the page: every one is used, and every one that is used exists."""

import json
import re
import shutil
import subprocess

import pytest

from helpers.paths import PROJECT

NODE = shutil.which("node")
STATIC = PROJECT / "src" / "spectag" / "serving" / "static"
PATHS = """
import { strings } from "./strings.mjs";
const isGroup = (value) => typeof value === "object" && !Array.isArray(value);
const pathsOf = (group, before) => Object.entries(group).flatMap(([name, value]) => (
  isGroup(value) ? pathsOf(value, [...before, name]) : [[...before, name]]));
process.stdout.write(JSON.stringify(pathsOf(strings, [])));
"""
BY_SHELL = ("views", "viewHints", "keys")
"""Groups that the shell uses by names that it gets."""

pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """The places of all texts, such as ("tag", "states", "waiting")."""
    folder = tmp_path_factory.mktemp("strings")
    shutil.copyfile(STATIC / "strings.js", folder / "strings.mjs")
    (folder / "paths.mjs").write_text(PATHS, encoding="utf-8")
    done = subprocess.run([NODE, "paths.mjs"], cwd=folder, capture_output=True, text=True, check=True)
    return {tuple(path) for path in json.loads(done.stdout)}


def used_in(script):
    """The places that a script names, with names of its own for groups of texts replaced."""
    groups = {"strings": [()]}
    for name, path in re.findall(r"const (\w+) = strings\.([\w.]+);", script):
        groups.setdefault(name, []).append(tuple(path.split(".")))
    for path, name in re.findall(r"const \{ (\w+)(?:: (\w+))? \} = strings;", script):
        groups.setdefault(name or path, []).append((path,))
    code = re.sub(r'from "[^"]*"|//.*', "", script)
    for name, path in re.findall(r"(?<!\w)(?<!\w\.)(\w+)((?:\.\w+)+)", code):
        if name in groups:
            yield [group + tuple(path[1:].split(".")) for group in groups[name]]


def place_of(path, texts):
    """The text or group of texts that code names, without the methods that it calls of it; None if there is none."""
    places = texts | {text[:end] for text in texts for end in range(1, len(text))}
    found = next((path[:end] for end in range(len(path), 0, -1) if path[:end] in places), None)
    return found if found in texts or found == path else None


def test_texts_that_scripts_use_exist_and_all_texts_are_used(texts):
    used, missing = set(), []
    for script in sorted(STATIC.glob("*.js")):
        for candidates in used_in(script.read_text(encoding="utf-8")):
            places = {place_of(path, texts) for path in candidates} - {None}
            used |= places
            if not places:
                missing.append((script.name, ".".join(candidates[0])))
    assert missing == []
    is_used = {text for text in texts if any(text[:end] in used for end in range(2, len(text) + 1))}
    assert {text for text in texts - is_used if not set(text) & set(BY_SHELL)} == set()
