"""The command `steadyspike`, as a script and as `python -m steadyspike`."""

import signal

# Ctrl-C while modules are loaded, or while C++ waits for other machines, ends without a traceback.
if signal.getsignal(signal.SIGINT) == signal.default_int_handler:  # else ignored, as in a shell's &
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from steadyspike.cli import main
from steadyspike.parent import end_with_dvc

if __name__ == "__main__":
    end_with_dvc()
    main()
