"""``python -m jitconv``: the same as the command ``jitconv``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
