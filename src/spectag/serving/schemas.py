"""What requests may set and what answers contain, for validation and for the OpenAPI description."""

from copy import copy
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from spectag.config.base import Config
from spectag.config.field_docs import field_docs
from spectag.config.listening import ListenSettings
from spectag.config.tagging import TagSettings

_OF_TAGS = ("window", "overlap", "top", "min_confidence", "max_novelty", "clip_level", "channel")
_OF_SEGMENTS = (
    *("window", "overlap", "min_confidence", "max_novelty", "channel", "smooth_windows", "hysteresis"),
    *("min_windows", "min_duration_seconds", "max_gap_seconds"),
)
_OF_LISTENING = ("window", "overlap", "min_confidence", "hysteresis", "smooth_windows", "min_windows")


_EXAMPLES: dict[str, Any] = {
    "window": 1.5,
    "overlap": 1.0,
    "top": 3,
    "min_confidence": 0.5,
    "max_novelty": 1.0,
    "clip_level": "mean",
    "channel": "loudest",
    "smooth_windows": 3,
    "hysteresis": 0.7,
    "min_windows": 2,
    "min_duration_seconds": 0.5,
    "max_gap_seconds": 0.2,
}


class RequestQuery(Config):
    """The parameters of a request."""

    model_config = ConfigDict(defer_build=False)  # FastAPI cannot use a model that is not built


def _part_of(name: str, settings: type[Config], fields: tuple[str, ...]) -> type[RequestQuery]:
    """Some of the settings of a command, with their limits and descriptions."""
    docs = field_docs(settings)
    chosen: dict[str, Any] = {}
    for field in fields:
        info = copy(settings.model_fields[field])
        info.description, info.examples = docs[field], [_EXAMPLES[field]]
        chosen[field] = (info.annotation, info)
    return create_model(name, __base__=RequestQuery, **chosen)


TagQuery = _part_of("TagQuery", TagSettings, _OF_TAGS)
SegmentQuery = _part_of("SegmentQuery", TagSettings, _OF_SEGMENTS)
LiveQuery = _part_of("LiveQuery", ListenSettings, _OF_LISTENING)


class EmbedQuery(RequestQuery):
    """What a request for embeddings may set."""

    window: float | None = Field(
        None, gt=0, le=3600, description="Length of the windows in seconds; default: one.", examples=[1.0]
    )


class SearchQuery(RequestQuery):
    """What a search may set."""

    n: int = Field(10, ge=1, le=1_000, description="Number of results.", examples=[10])
    label: tuple[str, ...] = Field(
        (), max_length=100, description="Only sounds with one of these labels.", examples=[["Dog"]]
    )
    one_per_file: bool = Field(False, description="At most one result for each recording.", examples=[True])


class TagAnswer(BaseModel):
    """A label of a sound, and its probability, calibrated."""

    label: str = Field(description="A label of the model.", examples=["Dog"])
    probability: float = Field(ge=0, le=1, description="From 0 to 1.", examples=[0.934512])


class SpanAnswer(BaseModel):
    """A recording, a window or a segment, and its labels."""

    start: float = Field(description="In seconds.", examples=[0.0])
    end: float | None = Field(description="In seconds.", examples=[5.0])
    tags: list[TagAnswer] = Field(description="The labels that are reported, the most probable first.")
    novelty: float | None = Field(
        None, description="97 % of new recordings of the training sounds are at most 1.", examples=[0.412]
    )


class TagsAnswer(BaseModel):
    """The tags of a sound: the objects that `spectag tag --format json` writes."""

    file: str = Field(description="The file name that the client gave.", examples=["street.ogg"])
    duration: float | None = Field(description="Length in seconds.", examples=[5.0])
    notes: str = Field(description="What is wrong with the sound, such as silence or clipping.", examples=[""])
    results: list[SpanAnswer] = Field(description="One for the recording, or for each window or segment.")


class EmbeddingsAnswer(BaseModel):
    """What the network has found in a sound, before its head turns it into labels."""

    file: str = Field(description="The file name that the client gave.", examples=["street.ogg"])
    embeddings: list[list[float]] = Field(
        description="One list for each window.", examples=[[[0.1211, -0.4502, 1.0023]]]
    )


class SimilarAnswer(BaseModel):
    """A window of an indexed recording."""

    file: str = Field(description="Of the index.", examples=["2024/owl_17.flac"])
    start: float = Field(description="In seconds.", examples=[12.0])
    end: float | None = Field(description="In seconds.", examples=[17.0])
    similarity: float = Field(description="From -1 to 1 (identical).", examples=[0.91])
    tags: list[TagAnswer] = Field(description="The labels that were reported when it was indexed.")


class SearchAnswer(BaseModel):
    """The most similar sounds of the index, the best first."""

    file: str = Field(description="The file name that the client gave.", examples=["owl.wav"])
    results: list[SimilarAnswer] = Field(description="The most similar first.")


class LabelAnswer(BaseModel):
    """A label of the model."""

    label: str = Field(description="Its name.", examples=["Dog"])
    threshold: float = Field(description="It is reported from this probability on.", examples=[0.42])
    clips: int | None = Field(description="Training clips with the label.", examples=[120])


class ModelAnswer(BaseModel):
    """The model of the server."""

    name: str = Field(description="Of its folder.", examples=["my-model"])
    version: str = Field(description="Of spectag.", examples=["0.1.0"])
    backbone: str = Field(description="The network below its head.", examples=["mn04_audioset"])
    n_labels: int = Field(description="Number of labels.", examples=[10])
    sample_rate: int = Field(description="Of the network, in Hz. Sounds may have any.", examples=[32_000])
    has_novelty: bool = Field(description="Whether results have a novelty.", examples=[True])
    has_index: bool = Field(description="Whether /v1/search is available.", examples=[False])
    card: str = Field(description="The model card, as Markdown.", examples=["# my-model"])


class StatusAnswer(BaseModel):
    """Whether the server works."""

    status: str = Field(description="ok, or ready.", examples=["ok"])
