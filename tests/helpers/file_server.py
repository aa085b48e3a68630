"""A web server on this machine that has one file, and breaks off, changes its mind or forgets as it is told."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer:
    """Serves `content` at /net.pt and keeps the Range of each request.

    `marks` are the headers that tell the version. `takes_ranges` is False for a server that sends the whole file
    whatever it is asked for. `longest` is the number of bytes after which it breaks off. Of `statuses` each request
    takes the first, until they are used up.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.marks = {"ETag": '"first"'}
        self.takes_ranges = True
        self.longest: int | None = None
        self.statuses: list[int] = []
        self.shift = 0  # added to where a part begins
        self.ranges: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/net.pt"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    @property
    def n_requests(self) -> int:
        return len(self.ranges)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.ranges.append(wanted)
        status = self.statuses.pop(0) if self.statuses else 200 if request.path == "/net.pt" else 404
        start, headers = 0, {}
        is_same = request.headers["If-Range"] in self.marks.values()
        if status == 200 and wanted and self.takes_ranges and is_same:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < len(self.content) else 416
            start += self.shift
            headers["Content-Range"] = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
        if status == 416:
            headers["Content-Range"] = f"bytes */{len(self.content)}"
        body = self.content[start:] if status in (200, 206) else b""
        request.send_response(status)
        for name, value in {**headers, **self.marks, "Content-Length": f"{len(body)}"}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body[: self.longest])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
