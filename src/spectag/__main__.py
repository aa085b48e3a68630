"""`python -m spectag`: same as the command `spectag`."""

import sys

from spectag.cli import main

sys.exit(main())
