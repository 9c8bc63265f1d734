"""Colours of the scene world and the two ways of shading them."""

Colour = tuple[int, int, int]

OBJECT_COLOURS: dict[str, Colour] = {
    "red": (212, 56, 50),
    "orange": (238, 138, 42),
    "yellow": (244, 205, 66),
    "green": (58, 158, 84),
    "blue": (48, 106, 212),
    "purple": (130, 76, 184),
    "pink": (240, 138, 180),
    "white": (238, 238, 234),
}


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """`a` with `share` (0..1) of it replaced by `b`."""
    return (
        round(a[0] + (b[0] - a[0]) * share),
        round(a[1] + (b[1] - a[1]) * share),
        round(a[2] + (b[2] - a[2]) * share),
    )


def lighter(colour: Colour, share: float) -> Colour:
    return mix(colour, (255, 255, 255), share)


def darker(colour: Colour, share: float) -> Colour:
    """Towards a cool near-black, as a shadow under a blue sky looks."""
    return mix(colour, (14, 16, 38), share)


def luminance(colour: Colour) -> float:
    """Rec. 601 luma, 0..255."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
