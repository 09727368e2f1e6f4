"""The part of the chip that is read out, and how its pixels are binned."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """A rectangle of the chip in pixels, and how many of them make a pixel of the frame.

    `bin_x` columns and `bin_y` rows are added on the chip, before the amplifier. What does not fill
    a bin is left out.

    >>> Region(0, 0, 1024, 1000, 4, 3).shape_vu
    (333, 256)
    """

    min_x: int
    min_y: int
    size_x: int
    size_y: int
    bin_x: int = 1
    bin_y: int = 1

    @property
    def shape_vu(self) -> tuple[int, int]:
        """Rows and columns of the frame."""
        return self.size_y // self.bin_y, self.size_x // self.bin_x
