"""Coverage-guided fuzzing with the check of ``benchmarks.fuzz``.

    python -m benchmarks.guided_fuzz -max_total_time=300    # by hand, with atheris, which is not a dependency

The first bytes of an input choose how the response is split and read; the rest is the response.
"""

import sys

import atheris  # type: ignore[import-untyped]  # installed by hand, where it is run

with atheris.instrument_imports(include=["bltybench.wire"]):
    from benchmarks.fuzz import check
    from benchmarks.wire_inputs import HEADERS, STATUS_LINES, WireInput


def one(data: bytes) -> None:
    """Run one input."""
    if len(data) < 4:
        return
    response, options = data[4:], data[3]
    if not options & 1:
        response = STATUS_LINES[0] + HEADERS[0] + b"\r\n" + response  # most paths are behind valid headers
    splits = (1 + data[0], 1 + data[1], 1 + data[2])
    check(
        WireInput(response, splits, not options & 2, bool(options & 4), options >> 6),
        compare_splits=bool(options & 8),
    )


if __name__ == "__main__":
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
