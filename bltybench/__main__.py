"""``python -m bltybench`` is ``bltybench``."""

from __future__ import annotations

import sys

from bltybench.cli import main

if __name__ == "__main__":
    sys.exit(main())
