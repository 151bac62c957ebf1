"""``python -m bltybench`` is ``bltybench``."""

import sys

from bltybench.cli import main

if __name__ == "__main__":
    sys.exit(main())
