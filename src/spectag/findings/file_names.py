"""Labels and names of recordings as parts of file names."""

import re

_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # on Windows
_MAX_NAME_BYTES = 80


def file_name_of(text: str) -> str:
    """A text as a part of a file name on every system.

    Examples
    --------
    >>> file_name_of("Sink (filling/washing)"), file_name_of("..")
    ('Sink (filling_washing)', '_')
    """
    name = _NOT_IN_NAMES.sub("_", text).encode(errors="replace")[:_MAX_NAME_BYTES].decode(errors="ignore").strip(" .")
    return f"_{name}" if not name or _RESERVED.fullmatch(name) else name


def unused_name(name: str, used: set[str]) -> str:
    """The name, or with a number if it is used; upper and lower case do not differ. `used` is case-folded.

    Examples
    --------
    >>> unused_name("Dog", {"dog"})
    'Dog (2)'
    """
    number, candidate = 1, name
    while candidate.casefold() in used:
        number += 1
        candidate = f"{name} ({number})"
    return candidate
