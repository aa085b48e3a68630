"""How sounds that are too short for a network become longer."""

from typing import Literal

Padding = Literal["silence", "repeat", "repeat_whole"]
"""How a sound that is too short becomes longer: silence follows; it is repeated; or it is repeated as often as it fits
as a whole, and silence follows (CLAP's repeatpad)."""
