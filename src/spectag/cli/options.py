"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter, validators

from spectag.config.base import Channel, ImageConfig, MelConfig
from spectag.config.devices import Device

Output = Annotated[Path, Parameter(name=["--output", "-o"])]
OptionalOutput = Annotated[Path | None, Parameter(name=["--output", "-o"])]
Flag = Annotated[bool, Parameter(negative="")]
Workers = Annotated[int | None, Parameter(name=["--workers", "-j"], validator=validators.Number(gte=1))]
Folds = Annotated[int | None, Parameter(validator=validators.Number(gte=2))]
Seconds = Annotated[float | None, Parameter(validator=validators.Number(gte=0))]
Length = Annotated[float | None, Parameter(validator=validators.Number(gt=0))]
"""In seconds."""
Names = Annotated[list[str] | None, Parameter(negative="")]
Number = Annotated[int, Parameter(name=["--number", "-n"], validator=validators.Number(gte=1))]
Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
Json = Annotated[bool, Parameter(name="--json", negative="")]
MelOptions = Annotated[
    MelConfig | None, Parameter(group="Feature extraction (default: that of the backbone)", show_default=False)
]
ChannelOption = Annotated[Channel, Parameter(name="--channel")]
DeviceOption = Annotated[Device, Parameter(name="--device")]
OptionalChannel = Annotated[Channel | None, Parameter(name="--channel")]
ImageOptions = Annotated[ImageConfig | None, Parameter(group="8-bit spectrogram images", show_default=False)]
