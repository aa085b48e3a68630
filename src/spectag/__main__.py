"""`python -m spectag`: same as the command `spectag`."""

import os
import sys

from spectag.cli import main

status = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # One of several processes. At the exit of Python, torch threads that still wait for the other processes sometimes
    # abort it, and the launcher would report a failure of finished work.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(status)
sys.exit(status)
