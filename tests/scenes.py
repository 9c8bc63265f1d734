"""Scenes of the demo's world, each rendered once a process. Whoever draws on a picture copies it first."""

from functools import cache

from demo.scene import Scene, render


@cache
def rendered(seed: int) -> Scene:
    return render(seed)
