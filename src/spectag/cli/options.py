"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from spectag.config.base import ImageConfig, MelConfig

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
OptionalOutput = Annotated[Path | None, Parameter(name=["--output", "-o"])]
Flag = Annotated[bool, Parameter(negative="")]
Workers = Annotated[int | None, Parameter(name=["--workers", "-j"], validator=Number(gte=1))]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Json = Annotated[bool, Parameter(name="--json", negative="")]
MelOptions = Annotated[
    MelConfig | None, Parameter(group="Feature extraction (default: that of the backbone)", show_default=False)
]
ImageOptions = Annotated[ImageConfig | None, Parameter(group="8-bit spectrogram images", show_default=False)]
