"""A contact sheet of scenes, with or without their true boxes.

python -m demo.sheet OUT.png [--seed S] [--boxes]
"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from demo.palette import OBJECT_COLOURS, darker
from demo.scene import Scene, render

CELL = (480, 384)
GAP = 8


def contact_sheet(first_seed: int, columns: int = 4, rows: int = 3, boxes: bool = False) -> Image.Image:
    """Scenes of consecutive seeds, each rendered at `CELL`'s shape and scaled to it."""
    width, height = CELL[0] + GAP, CELL[1] + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), (255, 255, 255))
    for i in range(columns * rows):
        scene = render(first_seed + i, (640, 512))
        picture = _boxed(scene) if boxes else scene.image
        place = (GAP + i % columns * width, GAP + i // columns * height)
        sheet.paste(picture.resize(CELL, Image.Resampling.LANCZOS), place)
    return sheet


def _boxed(scene: Scene) -> Image.Image:
    """The picture with the visible box of every object, its class and its distance."""
    picture = scene.image.copy()
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13)
    for item in scene.truth.objects:
        ink = darker(OBJECT_COLOURS[item.colour], 0.25)
        label = f"{item.category} {item.distance:.1f} m"
        x1, y1, x2, y2 = item.visible_box
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), outline=ink, width=2)
        corner = (x1, max(0, y1 - 16))
        draw.rectangle(draw.textbbox(corner, label, font), ink, ink, 4)
        draw.text(corner, label, (255, 255, 255), font)
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.sheet", description="Write a contact sheet of scenes.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--boxes", action="store_true", help="draw the true boxes")
    arguments = parser.parse_args()
    contact_sheet(arguments.seed, boxes=arguments.boxes).save(arguments.out)


if __name__ == "__main__":
    main()
