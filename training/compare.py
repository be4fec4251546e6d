"""`tf-mmloss compare`, from a checkout."""

import sys

from tf_mmloss.cli import run

if __name__ == "__main__":
    sys.exit(run("tf_mmloss.cli.compare"))
