"""The model card that lies beside trained weights."""

from dataclasses import dataclass
from typing import Any

import yaml

from fusion.train.section import TrainSection

_CARD = """---
{front}---

# {name}

A densefusion model of {millions:,.1f} M parameters: tower {vision}, connector {connector}, language model {text}.
`import fusion.model; fusion.model.register()` lets transformers' Auto classes load it; where densefusion is installed,
`vllm serve` takes it as any other model.

| | |
|---|---|
| made by | `{command}` |
| started from | {start} |
| data | {data} |
| rows | {rows:,}, of which {bad} could not be used |
| steps | {steps:,} of {batch:,} rows, {epochs:g} epochs |
| loss of an answer token at the end | {loss} |
| time | {minutes:,.0f} minutes on {device} |

## Trained

| group | parameters | peak learning rate |
|---|---|---|
{groups}

Everything else was frozen. Template `{template}`, at most {length:,} tokens, {schedule} schedule after {warmup:.1%} of
warm-up, seed {seed}, precision {precision}.
{notes}
## Settings

```yaml
{settings}```
"""


@dataclass(frozen=True)
class Facts:
    """What a card says beside the settings.

    Attributes:
        command: what was typed.
        groups: name, parameters and peak rate of what was trained.
        bad: rows that could not be used, by reason.
        loss: mean of the answer tokens of the log's last line; None where nothing was logged.
    """

    command: str
    connector: str
    vision: str
    text: str
    parameters: int
    groups: list[tuple[str, int, float]]
    rows: int
    bad: dict[str, int]
    steps: int
    epochs: float
    loss: float | None
    seconds: float
    device: str


def card(section: TrainSection, facts: Facts) -> str:
    """The card as Markdown with the Hub's YAML front matter."""
    values = section.model_dump(mode="json", exclude_defaults=True)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in facts.bad.items())
    front = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["densefusion", "image-captioning"],
    }
    return _CARD.format(
        front=yaml.safe_dump(front, sort_keys=False),
        name=section.name,
        connector=facts.connector,
        vision=facts.vision,
        text=facts.text,
        millions=facts.parameters / 1e6,
        command=facts.command,
        start=_start(section),
        data=", ".join(f"{source.format} `{source.path}`" for source in section.data.sources),
        rows=facts.rows,
        bad=f"{sum(facts.bad.values()):,}" + (f" ({reasons})" if reasons else ""),
        steps=facts.steps,
        batch=section.batch_size,
        epochs=round(facts.epochs, 3),
        loss="not logged" if facts.loss is None else f"{facts.loss:.4f}",
        minutes=facts.seconds / 60,
        device=facts.device,
        groups="\n".join(f"| {name} | {size:,} | {rate:g} |" for name, size, rate in facts.groups),
        template=section.template,
        length=section.max_length,
        schedule=section.schedule,
        warmup=section.warmup_ratio,
        seed=section.seed,
        precision=section.precision,
        notes="".join(f"\n- {note}" for note in section.notes) + ("\n" if section.notes else ""),
        settings=yaml.safe_dump(values, sort_keys=False, allow_unicode=True),
    )


def _start(section: TrainSection) -> str:
    kinds = ("checkpoint", "llava", "vision", "detail", "text")
    given: dict[str, Any] = {kind: ref for kind in kinds if (ref := getattr(section.model, kind))}
    return ", ".join(
        f"{name} `{ref.model}`" + (f" at {ref.revision}" if ref.revision else "") for name, ref in given.items()
    )
