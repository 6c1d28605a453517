"""For the modules of this folder that hold no test."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
