"""`python -m spectag`: same as the command `spectag`."""

import os
import sys

from spectag.cli.app import main

status = main()
if int(os.environ.get("WORLD_SIZE", "1")) > 1:
    # one of several processes: threads of torch's that still hear the others now and then abort Python while it ends,
    # and the launcher would report a failure of what is done
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
    os._exit(status)
sys.exit(status)
