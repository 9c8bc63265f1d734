"""The camera above a ground plane: what is how far away, and where it lands in the picture."""

import random
from dataclasses import dataclass

import numpy as np

NEAR_ROW = 0.97
"""Objects stand no lower than this fraction of the picture's height."""
DEPTH_RANGE = 3.0
"""The farthest object stands this many times as far away as the nearest may."""


@dataclass(frozen=True)
class Camera:
    """A pinhole camera looking parallel to the ground; its pitch is a vertical shift of the horizon.

    Attributes:
        width, height: of the picture, px.
        horizon: row of the horizon, px from the top.
        focal: focal length, px.
        elevation: of the camera above the ground, m.
    """

    width: int
    height: int
    horizon: float
    focal: float
    elevation: float

    @property
    def nearest(self) -> float:
        """Distance in m of what stands on row `NEAR_ROW`."""
        return self.distance(NEAR_ROW * self.height)

    @property
    def farthest(self) -> float:
        return self.nearest * DEPTH_RANGE

    def row(self, distance: float) -> float:
        """Row in px of the ground at `distance` m."""
        return self.horizon + self.focal * self.elevation / distance

    def distance(self, row: float) -> float:
        """Distance in m of the ground seen at `row` px, which lies below the horizon."""
        return self.focal * self.elevation / (row - self.horizon)

    def pixels(self, metres: float, distance: float) -> float:
        return metres * self.focal / distance

    def ground_disparity(self) -> np.ndarray:
        """Inverse distance in 1/m, float32 of shape (height, width): the ground below the horizon, 0 above."""
        rows = (np.arange(self.height, dtype=np.float32) + 0.5 - self.horizon) / (self.focal * self.elevation)
        return np.repeat(np.maximum(rows, 0).astype(np.float32)[:, None], self.width, axis=1)


def random_camera(rng: random.Random, width: int, height: int) -> Camera:
    """Pitch and elevation vary so that depth is not a function of the image row alone."""
    return Camera(
        width=width,
        height=height,
        horizon=round(height * rng.uniform(0.12, 0.6)),
        focal=(width * height) ** 0.5 * rng.uniform(0.9, 1.15),
        elevation=rng.uniform(0.9, 1.9),
    )
