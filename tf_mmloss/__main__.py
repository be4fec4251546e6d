"""`python -m tf_mmloss COMMAND`."""

import sys

from tf_mmloss.cli import main

if __name__ == "__main__":
    sys.exit(main())
