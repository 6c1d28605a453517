"""Python imports this by itself where this folder is in PYTHONPATH: SIGUSR1 writes the stack.

By a handler in Python, which waits for the operation at hand: faulthandler's looks at frames in the
midst of a change, and crashed now and then.
"""

import os
import signal
from types import FrameType

_dump = os.open(os.environ["STACK_DUMP"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def _write(number: int, frame: FrameType | None) -> None:
    lines = []
    while frame is not None:
        code = frame.f_code
        lines.append(f'  File "{code.co_filename}", line {frame.f_lineno} in {code.co_name}\n')
        frame = frame.f_back
    os.write(_dump, "".join([*lines, "  ...\n"]).encode())  # at once: another may come


signal.signal(signal.SIGUSR1, _write)
