"""Frames of a GIF, counted without decoding one."""


def gif_frames(data: bytes, limit: int) -> int:
    """Number of image blocks, counted up to `limit + 1`; a file that ends too early has those seen so far.

    Pillow's own count walks a whole file however many frames it has, so a small file of empty frames costs seconds.
    """
    frames = 0
    place = 13 + _colour_table(data, 10)
    while place < len(data) and frames <= limit:
        block = data[place]
        if block == 0x2C:  # image descriptor, local colours, LZW code size, data
            frames += 1
            place = _skip_data(data, place + 11 + _colour_table(data, place + 9))
        elif block == 0x21:  # extension: label, data
            place = _skip_data(data, place + 2)
        else:  # the trailer, or nothing that may stand here
            break
    return frames


def _colour_table(data: bytes, flags_at: int) -> int:
    flags = data[flags_at] if flags_at < len(data) else 0
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _skip_data(data: bytes, place: int) -> int:
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return place + 1
