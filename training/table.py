"""`reproduction/table.py`, under the name that it has always had."""

import sys
from pathlib import Path

from tf_mmloss.cli import run

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    sys.exit(run("reproduction.table"))
