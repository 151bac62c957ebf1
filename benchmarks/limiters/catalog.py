"""All limiters of the page."""

from benchmarks.limiters.catalog_debian import DEBIAN
from benchmarks.limiters.catalog_npm import NPM
from benchmarks.limiters.catalog_pypi import PYPI

LIMITERS = (*PYPI, *NPM, *DEBIAN)
