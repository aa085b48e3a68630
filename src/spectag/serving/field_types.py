"""Numbers in requests of the page, each with its limits."""

from typing import Annotated

from pydantic import Field

Seconds = Annotated[float, Field(ge=0, le=1e9)]
"""A time in a recording, or a length."""

Probability = Annotated[float, Field(ge=0, le=1)]

RowNumber = Annotated[int, Field(ge=0, le=2**53)]
"""The number of a clip, a version, a job or an edit; scripts of a page can represent no larger ones."""
