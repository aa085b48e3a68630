"""Make taggers for sounds."""
