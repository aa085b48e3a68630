"""How often Python looks for garbage."""

GARBAGE_THRESHOLD = 10_000
"""New objects after which Python looks for cycles of unused ones. With its 700, a tenth of the time of the imports goes
into this search."""
