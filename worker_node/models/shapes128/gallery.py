"""Draws the picture of the model card: held-out prompts with what came out, ``python -m ...shapes128.gallery FILE``."""

import sys
import textwrap
from pathlib import Path

from PIL import Image, ImageDraw

from worker_node.models.shapes128.evaluate import draw, held_out_trials, load
from worker_node.models.shapes128.layout import CANVAS

COLUMNS, ROWS = 6, 4
CAPTION = 58
"""Pixels below each picture, for four lines of the default font."""


def main() -> None:
    """Draw the first held-out prompts of the evaluation, none left out, a row of one thing before a row of two."""
    pipeline = load()
    half = COLUMNS * ROWS // 2
    one, two = held_out_trials(half, 1), held_out_trials(half, 2)
    trials = one[:COLUMNS] + two[:COLUMNS] + one[COLUMNS:] + two[COLUMNS:]
    sheet = Image.new("RGB", (COLUMNS * (CANVAS + 8) + 8, ROWS * (CANVAS + CAPTION + 8) + 8), "#d8d8d8")
    pen = ImageDraw.Draw(sheet)
    for index, trial in enumerate(trials):
        x, y = 8 + index % COLUMNS * (CANVAS + 8), 8 + index // COLUMNS * (CANVAS + CAPTION + 8)
        (picture,) = draw(pipeline, [trial])
        sheet.paste(Image.fromarray(picture), (x, y))
        pen.multiline_text((x, y + CANVAS + 2), textwrap.fill(trial.prompt, 24), fill="black", font_size=10, spacing=2)
    sheet.save(Path(sys.argv[1]), optimize=True)


if __name__ == "__main__":
    main()
