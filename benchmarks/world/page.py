"""The page of docs/ that an answer of the benchmark makes."""

from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.world.measure import Measured
from benchmarks.world.pictures import experts_sheet, signs_sheet, worst
from demo.shapes import CATEGORIES
from stages.markdown import markdown_environment

SHOWN = 4
"""Scenes on a sheet."""


def cells(row: dict[str, Any]) -> list[str]:
    """A row of the answer's table in words: what, figure, least, most, baseline, target, whether it is reached."""
    baseline, target = row["baseline"], row["target"]
    bound = "" if target is None else f"{'≤' if row['at_most'] else '≥'} {target:.2f}"
    return [
        row["what"],
        *(f"{row[name]:.3f}" for name in ("mean", "least", "most")),
        f"{baseline['mean']:.3f} ({baseline['what']})" if baseline else "",
        bound,
        {True: "yes", False: "no", None: ""}[row["reached"]],
    ]


def write_page(answer: dict[str, Any], path: Path) -> None:
    """Write the page of an answer; its pictures are those that lie in images/ beside it."""
    environment = markdown_environment(Path(__file__).parent)
    environment.filters["cells"] = cells
    missed = [row["figure"] for row in answer["table"] if row["reached"] is False]
    figures = {name: value["mean"] for name, value in answer["figures"].items()}
    drawn = [name for name in ("experts", "worst", "signs") if _picture(path, name).is_file()]
    text = environment.get_template("page.md.j2").render(
        answer, missed=missed, mean=figures, drawn=drawn, stem=path.stem, categories=CATEGORIES
    )
    path.write_text(text, encoding="utf-8")


def draw_pictures(measured: Measured, path: Path) -> None:
    """Draw the pictures of a page: the first scenes, the worst ones, and signs."""
    first = list(range(min(SHOWN, len(measured.shots))))
    sheets = {"experts": experts_sheet(measured, first), "worst": experts_sheet(measured, worst(measured, SHOWN))}
    if "ocr" in measured.priors:
        sheets["signs"] = signs_sheet(measured)
    for name, sheet in sheets.items():
        _save(sheet, _picture(path, name))


def _picture(page: Path, name: str) -> Path:
    return page.parent / "images" / f"{page.stem}-{name}.jpg"


def _save(sheet: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, quality=82, optimize=True)
