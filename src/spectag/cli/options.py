"""Options that several commands share."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.config.base import ImageConfig, MelConfig

Workers = Annotated[int | None, Parameter(name=["--workers", "-j"], validator=Number(gte=1))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
MelOptions = Annotated[
    MelConfig | None, Parameter(group="Front end (what is not given is the backbone's own)", show_default=False)
]
ImageOptions = Annotated[ImageConfig | None, Parameter(group="8-bit images of the spectrograms", show_default=False)]
