"""RoI align's mean over bins, against the published algorithm written out sample by sample."""

import math

import pytest
import torch
from torch.nn import functional

from fusion.model.connectors.roi import roi_means

SIDE, BINS = 24, 5
BOXES = [
    (0, 0, 24, 24),
    (3.25, 1.5, 20.75, 9),
    (2, 3, 2.25, 3.5),  # shorter than a place
    (0, 0, 0, 0),
    (24, 24, 24, 24),  # samples outside of the map count as zero
    (23.5, 4, 24, 6.5),
    (0, 5, 5, 5.25),
]


def sampled(plane, y, x):
    """Bilinear, zero from one place outside on."""
    last = SIDE - 1
    if not (-1 <= y <= SIDE and -1 <= x <= SIDE):
        return 0.0
    y, x = min(max(y, 0), last), min(max(x, 0), last)
    top, left = int(y), int(x)
    below, right = min(top + 1, last), min(left + 1, last)
    down, across = y - top, x - left
    upper = plane[top][left] * (1 - across) + plane[top][right] * across
    lower = plane[below][left] * (1 - across) + plane[below][right] * across
    return upper * (1 - down) + lower * down


def aligned_mean(plane, box):
    """The mean of the bins, each the mean of its samples (torchvision's roi_align, sampling_ratio -1, aligned off)."""
    x1, y1, x2, y2 = box
    width, height = max(x2 - x1, 1), max(y2 - y1, 1)
    down, across = math.ceil(height / BINS), math.ceil(width / BINS)
    total = 0.0
    for row in range(BINS):
        for column in range(BINS):
            of_bin = 0.0
            for i in range(down):
                for j in range(across):
                    y = y1 + (row + (i + 0.5) / down) * height / BINS
                    x = x1 + (column + (j + 0.5) / across) * width / BINS
                    of_bin += sampled(plane, y, x)
            total += of_bin / (down * across)
    return total / BINS**2


@pytest.fixture
def maps():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(channels, side, side, generator=generator) for channels, side in ((2, SIDE), (3, SIDE // 2), (2, 3))
    ]


def test_means_are_those_of_the_algorithm_on_interpolated_maps(maps):
    fine = [functional.interpolate(one[None], size=(SIDE, SIDE), mode="bilinear")[0] for one in maps]
    wanted = [[aligned_mean(plane.tolist(), box) for plane in torch.cat(fine)] for box in BOXES]
    found = roi_means(maps, torch.tensor(BOXES), BINS)
    assert found.shape == (len(BOXES), 7)
    assert (found - torch.tensor(wanted)).abs().max() < 2e-6


def test_no_boxes_make_no_rows(maps):
    assert roi_means(maps, torch.zeros(0, 4), BINS).shape == (0, 7)


def test_gradients_reach_the_places_under_a_box_and_no_others(maps):
    for one in maps:
        one.requires_grad_()
    roi_means(maps, torch.tensor([[2.0, 4.0, 6.0, 9.0]]), BINS).sum().backward()
    rows, columns = maps[0].grad[0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 9, 2, 6)
    assert maps[2].grad.abs().sum() > 0
