"""Tables of tags, one module a format."""
