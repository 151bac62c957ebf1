"""Reject modules and packages that have grown too large to find anything in.

python lint/module_size.py
"""

import sys
from collections import Counter
from pathlib import Path

MAX_LINES = 320
"""Maximum lines of a module. Longer ones held two ideas each time we looked."""
MAX_MODULES = 13
"""Maximum modules directly in a package, __init__ excluded. More can't be surveyed at a glance."""
FLAT = {"bltybench/metrics", "bltybench/sandbox"}
"""Packages that stay flat: one module per section of docs/method.md, and the parts of one server."""


def main() -> int:
    """Check the package and print what is too large."""
    modules = sorted(Path("bltybench").rglob("*.py"))
    found = [
        f"{path}: {lines} lines, at most {MAX_LINES}: split it"
        for path in modules
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    ]
    sizes = Counter(str(path.parent) for path in modules if path.name != "__init__.py")
    found += [
        f"{package}: {count} modules, at most {MAX_MODULES}: group them"
        for package, count in sorted(sizes.items())
        if count > MAX_MODULES and package not in FLAT
    ]
    print("\n".join(found) if found else f"{len(modules)} modules: all of a readable size")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
