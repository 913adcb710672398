"""Sizes, times and tables as a person reads them. Programs get bytes and seconds instead."""

from __future__ import annotations

from qbtools.lean import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def amount(count: int) -> str:
    """Bytes: `1023 B`, `1.5 GiB`."""
    power = min((max(count, 1).bit_length() - 1) // 10, len(_UNITS) - 1)
    return f"{count} B" if power == 0 else f"{count / (1 << 10 * power):.1f} {_UNITS[power]}"


def clock(seconds: float) -> str:
    """mm:ss, or h:mm:ss from an hour on."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def table(rows: Sequence[Sequence[str]], right: Container[str] = ()) -> list[str]:
    """Lines with aligned columns. The first row has the names of the columns; those in right are aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(_aligned, row, widths, (name in right for name in rows[0]))).rstrip() for row in rows]


def _aligned(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)
