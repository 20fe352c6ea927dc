"""`python -m gofer` is the command `gofer`."""

import sys

from gofer.cli.main import main

status = main()
if status:  # no SystemExit after a success: `python -i -m gofer run prog.py` ends at the prompt
    sys.exit(status)
