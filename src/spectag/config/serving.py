"""Settings of the server: where it listens, who may ask, and how much."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from spectag.config.base import Config
from spectag.config.devices import Device

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


class ServeSettings(Config):
    """Settings of `spectag serve`."""

    host: str = "127.0.0.1"
    """Address to listen on. Others than 127.0.0.1, such as 0.0.0.0, let other computers in, which need the token."""
    port: int = Field(8765, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    token: str | None = Field(None, repr=False)
    """Secret of at least 16 characters that clients send as Authorization: Bearer TOKEN. By default the environment
    variable SPECTAG_TOKEN; without it, none is needed on 127.0.0.1, and a new one is printed elsewhere."""
    allow_origin: tuple[str, ...] = Field((), max_length=100)
    """Origin of a web page that may ask this server from a browser, such as https://example.org; can be repeated."""
    index: Path | None = None
    """Folder of an index from spectag index, for /v1/search."""
    keep: Path | None = None
    """Keep the sounds that are uploaded in this folder. By default they are deleted after the answer."""
    folder: tuple[Path, ...] = Field((), max_length=100)
    """Folder in which the page may choose sounds, tables, models and projects, beside that of the project; can be
    repeated. By default the current folder, unless other computers can reach the server."""
    device: Device = "auto"
    """Where the networks run that answer. auto takes cuda or directml if it is installed and works, otherwise the CPU.
    With another device than the CPU, one process computes the answers. Jobs of a project always use auto."""
    max_megabytes: float = Field(200.0, gt=0, le=1e6)
    """Largest upload."""
    max_minutes: float = Field(120.0, gt=0, le=1e6)
    """Longest sound."""
    max_seconds: float = Field(120.0, gt=0, le=1e5)
    """Longest time to read an upload, and longest time to compute an answer."""
    max_gigabytes: float = Field(3.0, gt=0, le=1e5)
    """Memory that each worker may use beyond that of the model."""
    max_waiting: int = Field(64, ge=0, le=100_000)
    """Requests that are received or wait for a worker; others get the status 503."""
    max_page_sounds: int = Field(500, ge=1, le=1_000_000)
    """Sounds of the page that are kept while it is open; the ones used last."""
    max_page_gigabytes: float = Field(4.0, gt=0, le=1e6)
    """Disk space for the sounds of the page, with their spectrograms."""
    max_live: int = Field(8, ge=0, le=10_000)
    """Live streams at the same time."""
    max_live_minutes: float = Field(1440.0, gt=0, le=1e6)
    """Longest live stream."""
    max_per_minute: int | None = Field(None, ge=1, le=10_000_000)
    """Requests of a client in a minute. By default any number."""

    @property
    def is_local(self) -> bool:
        """Whether only this computer can reach the server."""
        return self.host in LOCAL_HOSTS

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        token = self.token
        if token is not None and not (16 <= len(token) <= 200 and token.isascii() and token.isprintable()):
            raise ValueError("the token is wrong: expected 16 to 200 printable ASCII characters")  # without the secret
        return self

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        for origin in self.allow_origin:
            scheme, _, rest = origin.partition("://")
            if scheme not in ("http", "https") or not rest or "/" in rest or "*" in rest:
                raise ValueError(f"allow_origin is {origin!r}; expected an origin such as https://example.org")
        return self

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        if self.host != "localhost":
            try:
                ipaddress.ip_address(self.host)
            except ValueError:
                raise ValueError(f"host is {self.host!r}; expected an address such as 127.0.0.1 or 0.0.0.0") from None
        return self
