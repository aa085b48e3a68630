"""The Live view: the microphone of the browser, its spectrogram and labels, and clips of what was heard.

The page sends its samples to `/v1/listen` and draws the spectrogram itself.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from spectag.audio.mel import band_centers
from spectag.audio.spectrogram_drawing import frequency_ticks
from spectag.audio.spectrogram_tiles import DB_PER_STEP, LOWEST_DB, TileScheme
from spectag.config.base import Config, WindowConfig, parse_config
from spectag.config.listening import ListenSettings
from spectag.errors import ConfigError
from spectag.serving.problems import ProblemError
from spectag.serving.view import View, ViewContext

_STEP_SECONDS = 0.25  # between windows: a sound is tagged so much later at most
_LEVEL = 2  # of the tiles of the Tag view: a column is 20 ms


class MicrophoneQuery(Config):
    """What the page says about its microphone."""

    sample_rate: int = Field(ge=8_000, le=384_000)
    """In Hz."""


def _spectrogram(sample_rate: int) -> dict[str, Any]:
    """The spectrogram of the Tag view at one level of zoom, for a script that computes its columns."""
    mel = TileScheme(sample_rate).mel(_LEVEL)
    return {
        "sample_rate": sample_rate,
        "n_fft": mel.n_fft,
        "hop_length": mel.hop_length,
        "points": [mel.f_min, *band_centers(mel).tolist(), mel.f_max],
        "ticks": [{"text": text, "height": height} for text, height in frequency_ticks(mel)],
        "lowest_db": LOWEST_DB,
        "db_per_step": DB_PER_STEP,
    }


def _windows(trained_on: WindowConfig) -> dict[str, float]:
    """The windows of `spectag listen`, with a shorter step: `window` and `step` in seconds."""
    window = ListenSettings().windows(trained_on).window_seconds
    assert window is not None
    return {"window": window, "step": min(_STEP_SECONDS, window / 4)}


def _routes(context: ViewContext) -> Sequence[BaseRoute]:
    def stream(request: Request) -> Response:
        """How to cut the sound of a microphone into windows, and how to draw its spectrogram."""
        try:
            query = parse_config(dict(request.query_params), MicrophoneQuery, source="the parameters")
        except ConfigError as error:
            raise ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error)) from error
        return JSONResponse({
            "windows": _windows(context.tagger.info.window), "spectrogram": _spectrogram(query.sample_rate)
        })  # fmt: skip

    return [Route("/stream", stream)]


VIEW = View("live", _routes)
