"""``python -m adapters``: the command line."""

import sys

from adapters.commands.cli import main

if __name__ == "__main__":
    sys.exit(main())
