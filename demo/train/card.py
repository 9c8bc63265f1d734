"""The model card that lies beside trained weights."""

from dataclasses import dataclass
from typing import Any

import yaml

from demo.train.base import Recipe, RecipeSection

_CARD = """---
{front}---

# {name}, trained on densefusion's scene world

{about}

It is for densefusion's demo and tests: it knows drawn scenes only and is of no use on photographs.

| | |
|---|---|
| made by | `{command}` |
| seed | {seed} |
| data | {scenes} training scenes, seeds of the split `train` of scene world {version} |
| steps | {steps} of {batch} scenes |
| parameters while training | {parameters:.2f} M |
| time | {minutes:.0f} {device} minutes, without the rendering of the scenes |

## Figures

On {validation} scenes of the split `validation`, which no weight was fitted to:

| | |
|---|---|
{figures}
"""


@dataclass(frozen=True)
class Facts:
    """What a card says of one training.

    Attributes:
        command: what was typed.
        scenes_version: of the pool.
        parameters: number of the trained model's, heads that are not saved among them.
        device: cpu or cuda.
        minutes: processor time on the CPU, wall time on a GPU.
        figures: on the validation scenes.
    """

    command: str
    scenes_version: str
    config: RecipeSection
    parameters: int
    device: str
    minutes: float
    figures: dict[str, float]


def card(recipe: Recipe[Any], facts: Facts) -> str:
    """The card as Markdown with the Hub's YAML front matter; the same facts give the same text."""
    front = {
        "license": "other",  # the repository states none
        "library_name": recipe.library,
        "pipeline_tag": recipe.task,
        "tags": ["densefusion", "synthetic", "scene-world"],
    }
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        name=recipe.name,
        about=recipe.about,
        command=facts.command,
        seed=facts.config.seed,
        scenes=facts.config.scenes,
        version=facts.scenes_version,
        steps=facts.config.steps,
        batch=facts.config.batch_size,
        parameters=facts.parameters / 1e6,
        minutes=facts.minutes,
        device="CPU" if facts.device == "cpu" else "GPU",
        validation=facts.config.validation_scenes,
        figures="\n".join(f"| {name.replace('_', ' ')} | {value:.3f} |" for name, value in facts.figures.items()),
    )
