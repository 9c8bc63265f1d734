"""Markdown that is made from a template."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def markdown_environment(folder: Path) -> Environment:
    """Templates of a folder, for Markdown made of configuration and figures; nothing of the web may enter: no escaping.

    A variable that is not given is an error.
    """
    return Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
