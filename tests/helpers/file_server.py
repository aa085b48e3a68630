"""A local web server with one file, which can lose connections, ignore ranges and change the file."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `content` at /net.pt and keeps the Range of each request.

    `version_headers` identify the version of the file. With `supports_ranges` False, the server always sends the whole
    file. It closes the connection after `max_bytes`. Each request uses up the first of `statuses`.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.version_headers = {"ETag": '"first"'}
        self.supports_ranges = True
        self.max_bytes: int | None = None
        self.statuses: list[int] = []
        self.offset = 0  # added to the start of a range
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.respond(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/net.pt"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def n_requests(self) -> int:
        return len(self.ranges)

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        range_header = request.headers["Range"]
        self.ranges.append(range_header)
        status = self.statuses.pop(0) if self.statuses else 200 if request.path == "/net.pt" else 404
        start, headers = 0, {}
        is_same = request.headers["If-Range"] in self.version_headers.values()
        if status == 200 and range_header and self.supports_ranges and is_same:
            start = int(range_header.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(self.content) else 416
            start += self.offset
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        if status == 416:
            headers["Content-Range"] = f"bytes */{len(self.content)}"
        body = self.content[start:] if status in (200, 206) else b""
        request.send_response(status)
        for name, value in {**headers, **self.version_headers, "Content-Length": f"{len(body)}"}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[: self.max_bytes])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
