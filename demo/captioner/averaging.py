"""Two trainings' weights made one, weight by weight: what was learnt last without losing what was learnt first.

A model that was trained on, and the one that it started from, lie in one valley: between them is a model that does the
new task nearly as well and the old one better than either (Wortsman et al., "Robust fine-tuning of zero-shot models",
2022).
"""

import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

_WEIGHTS = "model.safetensors"


def average(first: Path, second: Path, share: float, out: Path) -> None:
    """Write (1 - share) of the first model and `share` of the second one, with all else that the second's folder has.

    Raises:
        ValueError: they are of different shapes.
    """
    one, other = load_file(first / _WEIGHTS), load_file(second / _WEIGHTS)
    shapes = [{name: weight.shape for name, weight in state.items()} for state in (one, other)]
    if shapes[0] != shapes[1]:
        raise ValueError(f"{first} and {second} are models of different shapes")
    shutil.copytree(second, out, dirs_exist_ok=True)
    mean = {name: one[name].float().lerp(other[name].float(), share).contiguous() for name in one}
    save_file(mean, out / _WEIGHTS, metadata={"format": "pt"})
