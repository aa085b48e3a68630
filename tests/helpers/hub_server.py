"""A local server that speaks the part of the Hugging Face Hub's API that pushing and loading models needs."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

TOKEN = "hf_test"


class HubServer:
    """Model repositories in memory. Each has its commits, from the first on: the files by name.

    Networks and weights are uploaded by Git LFS, as on the hub, other files within the commit. Whoever sends no token
    can only read; the address of an upload is a secret of its own.
    """

    def __init__(self) -> None:
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.requests: list[str] = []
        self.status: int | None = None  # of every answer, to play a server in trouble
        self._lfs: dict[str, bytes] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _any(self) -> None:
                outer.respond(self)

            do_GET = do_HEAD = do_POST = do_PUT = _any  # noqa: N815 - names of http.server

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add(self, repository: str, files: dict[str, bytes]) -> str:
        """A new commit with these files; its hash."""
        self.commits.setdefault(repository, []).append(files)
        return self.hash_of(repository, -1)

    def hash_of(self, repository: str, number: int) -> str:
        commits = self.commits[repository]
        return hashlib.sha1(f"{repository} {range(len(commits))[number]}".encode()).hexdigest()

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        body = request.rfile.read(int(request.headers["Content-Length"] or 0))
        path = unquote(request.path.partition("?")[0])
        self.requests.append(f"{request.command} {path}")
        if self.status is not None:
            self._answer(request, self.status)
        elif request.headers["Authorization"] != f"Bearer {TOKEN}" and request.command == "POST":
            self._answer(request, 401, headers={"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path == "/api/repos/create":
            self._create(request, json.loads(body))
        elif path == "/api/validate-yaml":
            self._answer(request, 200, {"errors": [], "warnings": []})
        elif path.startswith("/api/models/"):
            self._api(request, path.split("/")[3:], body)
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._answer(
                request, 200, {"transfer": "basic", "objects": list(map(self._upload, json.loads(body)["objects"]))}
            )
        elif path.startswith("/lfs/"):
            self._lfs[path.removeprefix("/lfs/")] = body
            self._answer(request, 200)
        else:
            self._resolve(request, path)

    def _create(self, request: BaseHTTPRequestHandler, values: dict[str, object]) -> None:
        repository = f"{values.get('organization') or 'me'}/{values['name']}"
        exists = repository in self.commits
        if not exists:
            self.commits[repository] = [{".gitattributes": b"*.onnx filter=lfs\n"}]
        if values.get("private") or values.get("visibility") == "private":
            self.private.add(repository)
        self._answer(request, 409 if exists else 200, {"url": f"{self.url}/{repository}", "id": "1"})

    def _api(self, request: BaseHTTPRequestHandler, parts: list[str], body: bytes) -> None:
        repository, (action, revision) = "/".join(parts[:2]), (*parts[2:4], "revision", "main")[:2]
        commit = self._commit(repository, revision)
        if commit is None:
            code = "RevisionNotFound" if repository in self.commits else "RepoNotFound"
            self._answer(request, 404 if repository in self.commits else 401, headers={"X-Error-Code": code})
        elif action == "revision":
            number, files = commit
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            self._answer(
                request, 200, {"id": repository, "sha": self.hash_of(repository, number), "siblings": siblings}
            )
        elif action == "tree":
            oids = {name: hashlib.sha1(content).hexdigest() for name, content in commit[1].items()}
            sizes = {name: len(content) for name, content in commit[1].items()}
            self._answer(
                request, 200, [{"type": "file", "path": name, "size": sizes[name], "oid": oids[name]} for name in sizes]
            )
        elif action == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith((".onnx", ".safetensors")) else "regular" for name in names}
            files = [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]
            self._answer(request, 200, {"files": files})
        elif action == "commit":
            new = self._changed(commit[1], [json.loads(line) for line in body.splitlines()])
            oid = self.add(repository, new)
            url = f"{self.url}/{repository}/commit/{oid}"
            self._answer(request, 200, {"success": True, "commitOid": oid, "commitUrl": url})

    def _commit(self, repository: str, revision: str) -> tuple[int, dict[str, bytes]] | None:
        commits = self.commits.get(repository, [])
        hashes = [self.hash_of(repository, number) for number in range(len(commits))]
        if revision == "main" and commits:
            return len(commits) - 1, commits[-1]
        return (hashes.index(revision), commits[hashes.index(revision)]) if revision in hashes else None

    def _changed(self, files: dict[str, bytes], operations: list[dict[str, dict[str, str]]]) -> dict[str, bytes]:
        files = dict(files)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self._lfs[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        return files

    def _upload(self, item: dict[str, object]) -> dict[str, object]:
        actions = (
            {} if item["oid"] in self._lfs else {"upload": {"href": f"{self.url}/lfs/{item['oid']}", "header": {}}}
        )
        return {**item, **({"actions": actions} if actions else {})}

    def _resolve(self, request: BaseHTTPRequestHandler, path: str) -> None:
        owner, name, _resolve, revision, *rest = path[1:].split("/")
        repository = f"{owner}/{name}"
        commit = self._commit(repository, revision)
        content = commit and commit[1].get("/".join(rest))
        if content is None:
            self._answer(request, 404, headers={"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": revision, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        self._answer(request, 200, content, headers)

    def _answer(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        content: object = b"",
        headers: dict[str, str] | None = None,
    ) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        request.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": f"{len(body)}"}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)
