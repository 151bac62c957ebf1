"""Formatting of numbers, times, and text from outside, for pages and terminals."""

from bltybench.text import MAX_MESSAGE_CHARS, sanitize

NONE = "–"


def number(value: float | None, digits: int = 0) -> str:
    """Return ``12,345`` or ``1.25``; a dash for None."""
    return NONE if value is None else f"{value:,.{digits}f}"


def count(number: int, noun: str) -> str:
    """Return ``1 call`` or ``1,234 calls``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def milliseconds(value: float | None) -> str:
    """Return ``0.47 ms``, ``18.3 ms``, ``183 ms``, or ``12.4 s``: three significant digits."""
    if value is None:
        return NONE
    if value >= 9999.5:
        return f"{value / 1000:,.1f} s"
    return f"{value:,.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f} ms"


def signed(value: float | None, kind: str) -> str:
    """Return a change with its sign: ``+4.2%``, or ``−0.5 points`` for a share; a dash for None."""
    if value is None:
        return NONE
    size = f"{abs(value) * 100:,.1f}".removesuffix(".0")
    unit = "%" if kind != "share" else " point" if size == "1" else " points"
    sign = "" if size == "0" else "+" if value > 0 else "\N{MINUS SIGN}"
    return f"{sign}{size}{unit}"


def range_ms(low: float | None, high: float | None) -> str:
    """Return ``0.38 – 0.52 ms``, ``170 – 201 ms``, or ``950 ms – 1.2 s``; a dash for None."""
    if low is None or high is None:
        return NONE
    first, last = milliseconds(low), milliseconds(high)
    unit = last[last.rindex(" ") :]
    return f"{first.removesuffix(unit)} – {last}"


def percent(value: float | None) -> str:
    """Return ``22.4%``. Only 0 is shown as ``0%``, and only 1 as ``100%``."""
    if value is None:
        return NONE
    if 0 < value < 0.0005:
        return "<0.1%"
    if 0.9995 <= value < 1:
        return ">99.9%"
    return f"{value * 100:.1f}".removesuffix(".0") + "%"


def compact(value: float | None) -> str:
    """Return ``60``, ``30.5``, or ``1,234``: at most one decimal."""
    return NONE if value is None else f"{value:,.1f}".removesuffix(".0")


def sentence(value: str) -> str:
    """Return text with a capital first letter."""
    return value[:1].upper() + value[1:]


def with_unit(value: float | None, unit: str) -> str:
    """Return a value of ``scenario.checks.Unit`` with its unit."""
    if value is None:
        return NONE
    if value < 0:
        return f"\N{MINUS SIGN}{with_unit(-value, unit)}"
    if unit == "bool":
        return "true" if value else "false"
    if unit == "share":
        return f"{value * 100:.2f}".rstrip("0").rstrip(".") + "%"
    if unit == "ms":
        return f"{value:,.1f} ms"
    return compact(value)


def clock(seconds: float, digits: int = 0) -> str:
    """Return a time of the run as m:ss or h:mm:ss, with ``digits`` decimals."""
    whole, part = divmod(round(seconds * 10**digits), 10**digits)
    hours, minutes = divmod(whole // 60, 60)
    rest = f"{whole % 60:02d}" + (f".{part:0{digits}d}" if digits else "")
    return f"{hours}:{minutes:02d}:{rest}" if hours else f"{minutes}:{rest}"


def duration(seconds: float) -> str:
    """Return ``90 s``, ``12 min 30 s``, or ``2 h 5 min``."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def bounded(value: object, limit: int = MAX_MESSAGE_CHARS) -> str:
    """Return text from outside on one line, without control characters, at most ``limit`` characters."""
    return NONE if value is None else sanitize(str(value), limit=limit)
