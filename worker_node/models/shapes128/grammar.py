"""What shapes-128 can be asked for: scenes, the words for them, and the scenes it is never shown in training.

All of it is data and pure functions; ``layout`` puts a scene on the canvas, ``render`` draws it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from numpy.random import Generator

T = TypeVar("T")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 40),
    "orange": (255, 138, 20),
    "yellow": (250, 220, 30),
    "lime": (160, 232, 60),
    "green": (25, 130, 60),
    "cyan": (50, 205, 225),
    "blue": (35, 85, 220),
    "purple": (128, 50, 180),
    "pink": (248, 130, 195),
    "brown": (132, 80, 45),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES: dict[str, tuple[float, float]] = {"small": (12.0, 14.0), "medium": (17.0, 20.0), "large": (23.0, 25.0)}
"""Radii in pixels. A prompt that names no size means medium."""
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (250, 250, 250),
    "gray": (150, 152, 156),
    "black": (16, 16, 18),
    "beige": (236, 222, 192),
    "navy": (18, 24, 72),
}
POSITIONS: dict[str, tuple[float, float]] = {
    f"{row} {column}".replace("middle ", "").replace(" middle", "").replace("middle", "center"): (x, y)
    for row, y in (("top", 34.0), ("middle", 64.0), ("bottom", 94.0))
    for column, x in (("left", 34.0), ("middle", 64.0), ("right", 94.0))
}
"""Where one thing's centre lies, in pixels from the top left."""
SIDES: dict[str, tuple[int, int]] = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}
"""Of two things: on which side of the second the first one lies."""
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}

SYNONYMS: dict[str, tuple[str, ...]] = {
    "small": ("small", "tiny", "little"),
    "large": ("large", "big", "huge"),
    "purple": ("purple", "violet"),
    "cyan": ("cyan", "turquoise"),
    "circle": ("circle", "disc"),
    "square": ("square", "box"),
    "cross": ("cross", "plus"),
    "ring": ("ring", "donut"),
    "gray": ("gray", "grey"),
}
PLACES: dict[str, tuple[str, ...]] = {
    "top left": ("in the top left corner", "at the top left", "in the upper left"),
    "top": ("at the top", "in the upper middle"),
    "top right": ("in the top right corner", "at the top right", "in the upper right"),
    "left": ("on the left", "at the left side"),
    "center": ("in the center", "in the middle", ""),
    "right": ("on the right", "at the right side"),
    "bottom left": ("in the bottom left corner", "at the bottom left", "in the lower left"),
    "bottom": ("at the bottom", "in the lower middle"),
    "bottom right": ("in the bottom right corner", "at the bottom right", "in the lower right"),
}
RELATIONS: dict[str, tuple[str, ...]] = {
    "left": ("{a} to the left of {b}", "{a} left of {b}", "{b} with {a} to its left", "to the left of {b} is {a}"),
    "right": ("{a} to the right of {b}", "{a} right of {b}", "{b} with {a} to its right", "to the right of {b} is {a}"),
    "above": ("{a} above {b}", "{a} over {b}", "{b} with {a} above it", "above {b} is {a}"),
    "below": ("{a} below {b}", "{a} under {b}", "{a} beneath {b}", "{b} with {a} below it", "below {b} is {a}"),
}
BOTH_NAMED: dict[str, tuple[str, ...]] = {
    "left": ("{a} on the left and {b} on the right", "{a} and {b}", "{a} next to {b}"),
    "right": ("{a} on the right and {b} on the left",),
    "above": ("{a} at the top and {b} at the bottom",),
    "below": ("{a} at the bottom and {b} at the top",),
}
"""Word orders without a relation. "A and B" reads as it is written: A on the left."""
OPENINGS = ("", "", "", "a drawing of ", "a picture of ", "an image of ")
GROUNDS = ("on a {} background", "with a {} background", "against a {} background", "on {}")


@dataclass(frozen=True)
class Thing:
    """One thing to draw."""

    colour: str
    shape: str
    size: str = "medium"


@dataclass(frozen=True)
class Scene:
    """One thing at a position, or two of which the first lies on a side of the second."""

    things: tuple[Thing, ...]
    place: str
    background: str = "white"


def held_out_positions() -> list[tuple[str, str, str]]:
    """(colour, shape, position) of one thing that training never shows: one colour for each shape and position."""
    return _every_tenth(tuple(POSITIONS))


def held_out_sides() -> list[tuple[str, str, str]]:
    """(colour, shape, side) of either of two things that training never shows: one colour for each shape and side."""
    return _every_tenth(tuple(SIDES))


def _every_tenth(places: Sequence[str]) -> list[tuple[str, str, str]]:
    return [
        (colour, shape, place)
        for i, colour in enumerate(COLOURS)
        for j, shape in enumerate(SHAPES)
        for k, place in enumerate(places)
        if (i + 3 * j + 7 * k) % len(COLOURS) == 0
    ]


_HELD_OUT = {1: frozenset(held_out_positions()), 2: frozenset(held_out_sides())}


def is_held_out(scene: Scene) -> bool:
    """Whether any of its things, where it lies, is a combination that training never shows."""
    places = (scene.place,) if len(scene.things) == 1 else (scene.place, OPPOSITE[scene.place])
    combinations = {(t.colour, t.shape, place) for t, place in zip(scene.things, places, strict=True)}
    return not combinations.isdisjoint(_HELD_OUT[len(scene.things)])


def draw_scene(rng: Generator, things: int, held_out: bool) -> Scene:
    """Draw a scene of one or two things from the training split or from the held-out one."""
    while True:
        scene = Scene(
            tuple(Thing(pick(rng, tuple(COLOURS)), pick(rng, SHAPES), pick(rng, tuple(SIZES))) for _ in range(things)),
            pick(rng, tuple(POSITIONS if things == 1 else SIDES)),
            "white" if rng.random() < 0.4 else pick(rng, tuple(BACKGROUNDS)),
        )
        is_distinct = len({(t.colour, t.shape) for t in scene.things}) == things
        if is_distinct and is_held_out(scene) == held_out:
            return scene


def write_prompt(scene: Scene, rng: Generator) -> str:
    """Put a scene into words that determine it."""
    names = [_name(thing, rng) for thing in scene.things]
    if len(names) == 1:
        where = pick(rng, PLACES[scene.place])
        text = f"{where}, {names[0]}" if where and rng.random() < 0.2 else f"{names[0]} {where}".strip()
    else:
        family = RELATIONS if rng.random() < 0.8 else BOTH_NAMED
        text = pick(rng, family[scene.place]).format(a=names[0], b=names[1])
    if scene.background != "white" or rng.random() < 0.3:
        text = f"{text} {pick(rng, GROUNDS).format(_word(scene.background, rng))}"
    return pick(rng, OPENINGS) + text


def loosen(prompt: str, scene: Scene, rng: Generator) -> str:
    """Write a prompt as people do: a capital, a full stop, a word unknown to the grammar, or next to nothing."""
    if rng.random() < 0.04:
        thing = pick(rng, scene.things)
        return _word(pick(rng, (thing.colour, thing.shape)), rng)
    if rng.random() < 0.06:
        letters = "".join(chr(97 + int(rng.integers(26))) for _ in range(int(rng.integers(3, 8))))
        prompt = prompt.replace("a ", f"a {letters} ", 1)
    if rng.random() < 0.25:
        prompt = prompt[0].upper() + prompt[1:]
    return prompt + "." if rng.random() < 0.1 else prompt


def pick(rng: Generator, choices: Sequence[T]) -> T:
    """Draw one of ``choices``."""
    return choices[int(rng.integers(len(choices)))]


def _word(word: str, rng: Generator) -> str:
    return pick(rng, SYNONYMS.get(word, (word,)))


def _name(thing: Thing, rng: Generator) -> str:
    colour, shape = _word(thing.colour, rng), _word(thing.shape, rng)
    size = "" if thing.size == "medium" else _word(thing.size, rng) + " "
    if rng.random() < 0.1:
        return f"a {size}{shape} that is {colour}"
    article = "an" if not size and colour[0] in "aeiou" else "a"
    return f"{'the' if rng.random() < 0.1 else article} {size}{colour} {shape}"
