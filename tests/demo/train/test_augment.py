"""Augmentation: pictures, maps and boxes are cut alike, and colours stay what they are called."""

import numpy as np
import pytest

from demo.train.augment import WHOLE, cut, cut_boxes, cut_cells, light, plain, spoil, windows

SIDE = 96


def _one_square() -> tuple[np.ndarray, np.ndarray]:
    """Red squares on grey, uint8 (16, 96, 96, 3), and their boxes as fractions (16, 4)."""
    rng = np.random.default_rng(3)
    images = np.full((16, SIDE, SIDE, 3), 128, np.uint8)
    corners = rng.integers(0, 60, (16, 2))
    boxes = np.concatenate([corners, corners + rng.integers(12, 36, (16, 1))], axis=1)
    for image, (x1, y1, x2, y2) in zip(images, boxes, strict=True):
        image[y1:y2, x1:x2] = (220, 20, 20)
    return images, (boxes / SIDE).astype(np.float32)


def test_boxes_and_cells_follow_the_picture() -> None:
    images, boxes = _one_square()
    where = windows(np.random.default_rng(0), len(images), whole=0.2)
    assert (where[:, :2] >= 0).all() and (where[:, 2:] <= 1 + 1e-6).all()
    assert 0 < (where == WHOLE).all(axis=1).sum() < len(images)
    views = cut(images, where, 64)
    cells = cut_cells((images[..., 0] > 170).astype(np.uint8), where, 64)
    for view, cell, box, window in zip(views, cells, boxes, where, strict=True):
        (inside,), (share,) = cut_boxes(box[None], window)
        assert 0 <= share <= 1 + 1e-6
        red = view[..., 0] > 174  # halfway
        assert (red != cell.astype(bool)).mean() < 0.02
        if share < 0.3:
            continue
        ys, xs = np.nonzero(red)
        seen = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
        np.testing.assert_allclose(seen, inside * 64, atol=1.5)


def test_a_box_outside_the_window_has_no_share() -> None:
    boxes = np.array([[0.0, 0.0, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6]], np.float32)
    inside, share = cut_boxes(boxes, np.array([0.5, 0.5, 1.0, 1.0], np.float32))
    np.testing.assert_allclose(share, [0, 0.25], atol=1e-6)
    np.testing.assert_allclose(inside[1], [0, 0, 0.2, 0.2], atol=1e-6)


def test_the_same_generator_gives_the_same_pictures() -> None:
    images, _ = _one_square()

    def made(seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        return light(spoil(images, rng, 1.0), rng, (0.5,) * 3, (0.25,) * 3).numpy()

    np.testing.assert_array_equal(made(1), made(1))
    assert np.abs(made(1) - made(2)).mean() > 0.01


def test_spoiling_leaves_the_rest_alone_and_shows_the_same() -> None:
    images, _ = _one_square()
    np.testing.assert_array_equal(spoil(images, np.random.default_rng(0), 0.0), images)
    spoilt = spoil(images, np.random.default_rng(0), 1.0)
    changed = (spoilt != images).any(axis=(1, 2, 3))
    assert changed.mean() > 0.5
    assert np.abs(spoilt.astype(int) - images).mean() < 12


def test_light_keeps_red_the_strongest_channel_and_plain_is_the_models_transform() -> None:
    images, _ = _one_square()
    images[...] = (220, 20, 20)
    lit = light(images, np.random.default_rng(0), (0.0,) * 3, (1.0,) * 3)
    assert lit.shape == (16, 3, SIDE, SIDE)
    assert (lit[:, 0] - lit[:, 1:].amax(dim=1) > 0.3).all()
    assert lit.min() >= 0 and lit.max() <= 1
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    normalised = plain(images, mean, std)[0, :, 0, 0].tolist()
    assert normalised == pytest.approx([(v / 255 - m) / s for v, m, s in zip((220, 20, 20), mean, std, strict=True)])
