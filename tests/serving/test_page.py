"""The page: who gets it, what it may load, and that nothing else of the package can be asked for."""

import re
import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from helpers.bundles import LABELS, make_bundle, make_info
from spectag.config.serving import ServeSettings
from spectag.serving import create_app, serve, server

PORT = 8124
HOST = f"127.0.0.1:{PORT}"
TOKEN = "a secret of many characters"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("models") / "model", make_info())


def client_of(model, **settings):
    return TestClient(create_app(model, ServeSettings(**settings), workers=1, port=PORT), base_url=f"http://{HOST}")


def test_page_loads_only_files_of_its_own_and_runs_no_inline_script(model):
    client = client_of(model)
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script>|style=|onclick|https?://", page.text)
    loaded = re.findall(r'(?:src|href)="(/[^"]*)"', page.text)
    assert len(loaded) == 2
    for path in loaded:
        answer = client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-type"].split(";")[0] in ("text/css", "text/javascript")
        assert not re.search(r"https?://", answer.text)


def test_every_script_that_is_imported_is_served(model):
    client = client_of(model)
    waiting, seen = ["app.js"], set()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            answer = client.get(f"/static/{name}")
            assert answer.status_code == 200, name
            waiting += re.findall(r'from "\./([^"]+)"', answer.text)
    assert {"app.js", "strings.js", "elements.js"} <= seen


@pytest.mark.parametrize(
    "path", ["page.py", "..%2fapi.py", "../api.py", "%2e%2e/api.py", "page.html", "app.js%00", "x/../../api.py", ""]
)
def test_no_other_file_is_served(model, path):
    answer = client_of(model).get(f"/static/{path}")
    assert answer.status_code == 404
    assert "import" not in answer.text


def test_views_describe_the_model(model):
    info = client_of(model).get("/views").json()
    assert info["model"]["name"] == model.name
    assert [label["label"] for label in info["labels"]] == list(LABELS)
    assert all(re.fullmatch("#[0-9a-f]{6}", label["color"]) for label in info["labels"])


def test_token_in_the_address_becomes_a_cookie_that_does_not_contain_it(model):
    client = client_of(model, token=TOKEN)
    assert client.get("/").status_code == client.get("/static/app.js").status_code == 200
    assert client.get("/views").status_code == 401
    assert "set-cookie" not in client.get("/?token=wrong").headers
    cookie = client.get("/", params={"token": TOKEN}).headers["set-cookie"]
    assert TOKEN not in cookie
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert client.get("/views").status_code == 200  # the client sends the cookie
    assert client.get("/views", headers={"sec-fetch-site": "same-site"}).status_code == 401
    assert client.post("/v1/tag", headers={"origin": "https://evil.example"}).status_code == 403


def test_token_can_be_typed(model):
    client = client_of(model, token=TOKEN)
    wrong = client.post("/session", headers={"authorization": "Bearer wrong"})
    assert (wrong.status_code, "set-cookie" in wrong.headers) == (401, False)
    assert client.post("/session", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 204
    assert client.get("/views").status_code == 200


def test_forged_cookies_are_refused(model):
    client = client_of(model, token=TOKEN)
    for value in ("", "0" * 64, TOKEN, "ä"):
        header = f"spectag-{PORT}={value}".encode()
        assert client.get("/views", headers={"cookie": header}).status_code == 401


@pytest.mark.parametrize(
    ("settings", "page"),
    [
        ({}, r"http://127\.0\.0\.1:\d+/"),
        ({"token": TOKEN}, r"http://127\.0\.0\.1:\d+/\?token=a%20secret%20of%20many%20characters"),
        ({"host": "0.0.0.0"}, r"http://[^/]+:\d+/\?token=[\w-]{32}"),
    ],
)
def test_browser_opens_the_page_with_the_token(model, monkeypatch, settings, page):
    opened, lines = [], []
    monkeypatch.setattr(server, "open_in_browser", opened.append)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    serve(model, ServeSettings(port=0, **settings), workers=1, browser=True, log=lines.append)
    assert re.fullmatch(page, opened[0])
    assert "0.0.0.0" not in opened[0]
    assert TOKEN not in "".join(lines)
    serve(model, ServeSettings(port=0, **settings), workers=1, log=lines.append)
    assert len(opened) == 1


def test_command_opens_no_browser_without_a_terminal(model, run, monkeypatch):
    asked = []
    monkeypatch.setattr("spectag.serving.serve", lambda *_, **options: asked.append(options["browser"]))
    for is_terminal, options in [(True, []), (True, ["--no-browser"]), (False, [])]:
        monkeypatch.setattr("sys.stdin.isatty", lambda value=is_terminal: value)
        assert run("serve", model, *options).status == 0
    assert asked == [True, False, False]


@pytest.mark.parametrize("library", ["torch", "matplotlib", "sklearn", "scipy.stats", "scipy.optimize", "scipy.signal"])
def test_server_starts_without_slow_libraries(library):
    code = f"import sys, spectag.serving.server; sys.exit({library!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
