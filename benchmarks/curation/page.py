"""The page of docs/ that an answer of the curation benchmark makes."""

from pathlib import Path
from typing import Any

from benchmarks.curation import paper
from benchmarks.curation.parts import PARTS
from stages.markdown import markdown_environment


def cells(figure: dict[str, Any]) -> list[str]:
    """A figure in words: what, value, target, whether it is reached, against what and how."""
    target = "" if figure["target"] is None else f"{'≤' if figure['at_most'] else '≥'} {figure['target']:g}"
    value = "–" if figure["value"] is None else f"{number(figure['value'])} {figure['unit']}".rstrip()
    reached = {True: "yes", False: "no", None: ""}[figure["reached"]]
    beside = "; ".join(text for text in (figure["against"], figure["note"]) if text)
    return [figure["what"], value, target, reached, beside]


def number(value: float) -> str:
    """Three digits where there is a fraction, all digits of a count."""
    if float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 0.99 else f"{value:.4g}"


def write_page(answer: dict[str, Any], path: Path) -> None:
    environment = markdown_environment(Path(__file__).parent)
    environment.filters["cells"] = cells
    figures = [figure for part in answer["parts"].values() for figure in part["figures"]]
    missed = [figure["what"] for figure in figures if figure["reached"] is False]
    text = environment.get_template("page.md.j2").render(answer, missed=missed, constants=paper, about=PARTS)
    path.write_text(text, encoding="utf-8")
