"""Configuration sections: typed, bounded, described; unknown keys are refused.

A field either *decides* what a shard contains, and then it is part of the fingerprint; or it only says how the work is
done (`runtime`), and then changing it re-runs nothing; or it is applied by whoever reads what was measured (`later`),
and then changing it re-runs the readers and not the measurement.
"""

import os
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic.fields import FieldInfo


class Section(BaseModel):
    """Base of every configuration section: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def decides(self) -> dict[str, Any]:
        """The JSON values of the fields that decide content, `runtime` and `later` fields left out at any depth."""
        out: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            if _marked(field, "runtime") or _marked(field, "later"):
                continue
            value = getattr(self, name)
            out[name] = value.decides() if isinstance(value, Section) else self._json(name)
        return out

    def decisions(self) -> dict[str, Any]:
        """The JSON values of the `later` fields."""
        return {name: self._json(name) for name, field in type(self).model_fields.items() if _marked(field, "later")}

    def _json(self, name: str) -> Any:
        return self.model_dump(mode="json", include={name})[name]


def _marked(field: FieldInfo, mark: str) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get(mark))


def runtime(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic Field that does not enter the fingerprint (resources, deadlines, concurrency)."""
    return Field(default, json_schema_extra={"runtime": True}, **kwargs)


def later(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic Field that is applied when what was measured is read: a threshold, a limit, a rule of merging."""
    return Field(default, json_schema_extra={"later": True}, **kwargs)


def located(default: Any = ..., **kwargs: Any) -> Any:
    """A pydantic Field that names a place: a folder, a file, a hub id.

    What lies there decides, and the stage's `models()` states its identity; so a run directory can be moved.
    """
    return Field(default, json_schema_extra={"runtime": True, "place": True}, **kwargs)


class Workers(Section):
    """How many workers a stage may have at once."""

    min: int = Field(1, ge=1, description="workers started at once")
    max: int = Field(1, ge=1, description="workers that may be added under load")

    @model_validator(mode="after")
    def _ordered(self) -> "Workers":
        if self.max < self.min:
            raise ValueError(f"workers.max ({self.max}) must not be below workers.min ({self.min})")
        return self


class Resources(Section):
    """What one worker of a stage takes from the cluster."""

    cpus: float = Field(1.0, ge=0, description="CPUs a worker holds; fractions share a core")
    gpus: float = Field(0.0, ge=0, description="GPUs a worker holds; 0 runs on the CPU, fractions share a device")
    memory: int | None = Field(None, ge=1, description="heap memory a worker reserves, in bytes; null reserves none")
    workers: Workers = Field(Workers(), description="size of the worker pool")

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """`cuda` where a GPU was asked for, else `cpu`; never what the driver happens to see."""
        return "cuda" if self.gpus > 0 else "cpu"


class StageSection(Section):
    """What every stage's section has."""

    resources: Resources = runtime(Resources(), description="what one worker of this stage takes from the cluster")


class ModelRef(Section):
    """A model by hub id and revision, or by local folder.

    `~` is the user's home. open_clip's `hf-hub:` before a hub id says nothing more and goes.
    """

    model: str = located(description="hub id (org/name) or local folder")
    revision: str | None = located(None, description="hub revision; pin a commit for a reproducible run")

    @field_validator("model")
    @classmethod
    def _plain(cls, model: str) -> str:
        return os.path.expanduser(model.removeprefix("hf-hub:"))  # noqa: PTH111  a hub id is no Path
