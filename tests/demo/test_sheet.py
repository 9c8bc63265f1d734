"""The contact sheet."""

import numpy as np

from demo.sheet import CELL, GAP, contact_sheet


def test_boxes_are_drawn_where_objects_are_and_nowhere_else() -> None:
    plain = np.asarray(contact_sheet(5, columns=2, rows=1), np.int16)
    boxed = np.asarray(contact_sheet(5, columns=2, rows=1, boxes=True), np.int16)
    assert plain.shape == (CELL[1] + 2 * GAP, 2 * (CELL[0] + GAP) + GAP, 3)
    changed = np.abs(plain - boxed).max(-1) > 8
    for half in (changed[:, : CELL[0]], changed[:, CELL[0] :]):
        assert 0.002 < half.mean() < 0.3
