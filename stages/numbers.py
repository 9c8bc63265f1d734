"""Numbers as people read them."""

from collections.abc import Callable


def count(value: float) -> str:
    """`1,234`; two decimals only where there are any."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def size(value: float) -> str:
    """Bytes with a binary unit: `1.5 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def rate(rows: float, seconds: float) -> str:
    """Rows a second; a dash where no time was measured."""
    if seconds <= 0:
        return "–"
    value = rows / seconds
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def percent(part: float, whole: float) -> str:
    """`12.3 %`; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else "–"


FILTERS: dict[str, Callable[..., str]] = {
    "count": count,
    "size": size,
    "duration": duration,
    "rate": rate,
    "percent": percent,
}
