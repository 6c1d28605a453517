"""Runs one part in this process; writes each of its rows to standard output as a line of JSON.

Usage: part.py PART OPTIONS, with the options of `common.Options` as JSON.
"""

import importlib
import json
import os
import sys
import traceback
from dataclasses import asdict, replace


def main() -> int:
    name, values = sys.argv[1], json.loads(sys.argv[2])
    # What libraries print goes to standard error; rows alone to the parent.
    rows = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before cuBLAS starts
    from common import Options

    options = Options(**{**values, "experiments": tuple(values["experiments"])})
    # A module of ours named tests would hide the repository's.
    module = {"tests": "gpu_tests"}.get(name, name)
    try:
        for row in importlib.import_module(module).measure(options):
            if options.rehearse:
                row = replace(row, target="")  # tiny sizes on a CPU reach none
            print(json.dumps(asdict(row)), file=rows)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
