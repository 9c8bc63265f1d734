"""`docs/configuration.md`, made from the sections themselves: python -m pipeline.reference > docs/configuration.md"""

import sys
from typing import Any, get_args

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pipeline.config import Config
from schemas.section import Section

HEAD = """# Configuration

Made by `python -m pipeline.reference`; a test holds it against the code. A run's configuration is a preset's name or a
YAML file, and `--set key.path=value` on top; a file may name a preset to start from:

```yaml
extends: single-node
ingest: {sources: [/data/laion/*.parquet]}
caption: {max_tokens: 400}
```

`${run}` in a value stands for the run directory. Settings marked *runtime* only say how or where the work is done:
changing one re-runs nothing. Settings marked *later* are applied whenever an expert's table is read: changing one
re-runs no expert, only those who read (`caption`, `package`). Of a *place*, what lies there decides (a file's content,
a model's weights or revision), not its name. All others enter the fingerprint: changing one re-runs that stage and what
follows from it.

| setting | default | what it is |
|---|---|---|
"""


def reference() -> str:
    """The whole page."""
    return HEAD + "".join(f"| `{name}` | {default} | {text} |\n" for name, default, text in _rows(Config, "", False))


def _rows(section: type[Section], prefix: str, is_runtime: bool) -> list[tuple[str, str, str]]:
    rows = []
    for name, field in section.model_fields.items():
        path, extra = f"{prefix}{name}", field.json_schema_extra
        runtime = is_runtime or (isinstance(extra, dict) and bool(extra.get("runtime")))
        inner = _section(field.annotation)
        marks = [name for name in ("place", "later") if isinstance(extra, dict) and extra.get(name)]
        mark = "".join(f" *{name}*" for name in marks or (["runtime"] if runtime else []))
        if inner is None:
            bounds = _bounds(field)
            rows.append((path, _default(field), f"{field.description}{bounds}{mark}".replace("|", "\\|")))
        elif name == "resources" and prefix != "ingest.":
            rows.append((path, "", "as `ingest.resources` *runtime*"))
        else:
            rows.append((path, _switch(field), f"{field.description}{mark}"))
            rows += _rows(inner, f"{path}.", runtime)
    return rows


def _section(annotation: Any) -> type[Section] | None:
    kinds = [annotation, *get_args(annotation)]
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Section)), None)


def _switch(field: FieldInfo) -> str:
    return "null" if field.default is None else ""


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(str(v) for v in value)}]`"
    return "null" if value is None else f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    parts = [f"{word} {getattr(m, key)}" for m in field.metadata for key, word in words.items() if hasattr(m, key)]
    return f" ({', '.join(parts)})" if parts else ""


if __name__ == "__main__":
    sys.stdout.write(reference())
