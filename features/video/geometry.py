"""Sizes: from the coded picture to the one a player shows, and from that to the one that is stored."""

from fractions import Fraction


def display_size(width: int, height: int, *, sar: Fraction, rotation: int) -> tuple[int, int]:
    """Width and height in square pixels after rotation.

    The height of the coded picture is kept and its width stretched, as ffplay does; then it is turned.

    >>> display_size(160, 240, sar=Fraction(1, 2), rotation=270)
    (240, 80)
    """
    stretched = max(1, round(width * sar)) if sar > 0 else width
    return (height, stretched) if rotation % 180 == 90 else (stretched, height)


def stored_size(
    width: int, height: int, *, short_side: int | None, size: tuple[int, int] | None
) -> tuple[int, int]:
    """Width and height of the stored frames.

    Args:
        width: as displayed.
        height: as displayed.
        short_side: scale so that the shorter side has this many pixels and the other is the nearest even
            number; None: keep the displayed size.
        size: exact (width, height), whatever the aspect; goes before ``short_side``.

    >>> stored_size(320, 240, short_side=256, size=None)
    (342, 256)
    """
    if size is not None:
        return size
    if short_side is None:
        return width, height
    other = max(2, 2 * round(max(width, height) * short_side / min(width, height) / 2))
    return (other, short_side) if width >= height else (short_side, other)
