"""`python -m spectag`: same as the command `spectag`."""

import os
import sys

from spectag.cli import main
from spectag.system.stop_signals import is_one_of_several

status = main()
if is_one_of_several():
    # At the exit of Python, torch threads that still wait for the other processes sometimes
    # abort it, and the launcher would report a failure of finished work.
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(status)
sys.exit(status)
