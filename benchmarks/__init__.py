"""The programs behind every claim about speed and exactness. Run them from the repository's root:

python -m benchmarks.wire --quick
"""
