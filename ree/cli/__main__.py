"""`python -m ree.cli`: the command line."""

import sys

from ree.cli import main

if __name__ == "__main__":
    sys.exit(main())
