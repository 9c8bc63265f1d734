"""A page from a template of this folder."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from stages import numbers


def render(template: str, **values: Any) -> str:
    """The same values give the same text. What comes from outside is escaped, whatever it holds."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(numbers.FILTERS)
    return environment.get_template(template).render(**values)
