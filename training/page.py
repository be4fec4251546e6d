"""Make a page of a run, see `tf_mmloss.cli.page`."""

import sys

from tf_mmloss.cli import run

if __name__ == "__main__":
    sys.exit(run("tf_mmloss.cli.page"))
