"""Python imports this by itself where this folder is in PYTHONPATH: SIGUSR1 writes the stack.

The dump is made in the signal's handler, below Python: what runs goes on as it would have.
"""

import faulthandler
import os
import signal
from pathlib import Path

_dump = Path(os.environ["STACK_DUMP"]).open("w")  # noqa: SIM115  (open as long as the process)
faulthandler.register(signal.SIGUSR1, file=_dump, all_threads=False)
