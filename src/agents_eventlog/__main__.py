"""``python -m agents_eventlog``: the command line."""

import sys

from agents_eventlog.adapters.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
