"""Options that several commands share."""

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

Workers = Annotated[int | None, Parameter(name=["--workers", "-j"], validator=Number(gte=1))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
Json = Annotated[bool, Parameter(name="--json", negative="", show_default=False)]
