"""Options of a front end, which several commands share."""

from typing import Annotated

from cyclopts import Parameter

from spectag.config import ImageConfig, MelConfig

MelOptions = Annotated[
    MelConfig | None, Parameter(group="Front end (what is not given is the backbone's own)", show_default=False)
]
ImageOptions = Annotated[ImageConfig | None, Parameter(group="8-bit images of the spectrograms", show_default=False)]
