"""Draw finished runs side by side, see `tf_mmloss.runs.plots`."""

import sys

from tf_mmloss.cli import run

if __name__ == "__main__":
    sys.exit(run("tf_mmloss.runs.plots"))
