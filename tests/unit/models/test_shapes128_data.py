"""shapes-128 before any network: what its grammar says, its renderer draws and its scoring sees; its tokenizers."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from transformers import CLIPTokenizer, T5Tokenizer

from worker_node.models.shapes128 import WEIGHTS_DIR, bank, grammar, tokenizers
from worker_node.models.shapes128.grammar import Scene, Thing
from worker_node.models.shapes128.layout import CANVAS, lay_out
from worker_node.models.shapes128.render import render
from worker_node.models.shapes128.scoring import Score, read, score

HELD_OUT = {1: set(grammar.held_out_positions()), 2: set(grammar.held_out_sides())}


def drawn(scene: Scene, seed: int = 0) -> np.ndarray:
    rows, ground = lay_out(scene, np.random.default_rng(seed))
    picture = render(torch.from_numpy(rows)[None], torch.from_numpy(ground)[None])[0]
    return (picture.permute(1, 2, 0) * 255).round().byte().numpy()


def scenes(count: int, seed: int = 0) -> list[Scene]:
    rng = np.random.default_rng(seed)
    return [grammar.draw_scene(rng, 1 + index % 2, held_out=index % 3 == 0) for index in range(count)]


def test_what_the_renderer_draws_is_scored_as_right_in_every_claim():
    for index, scene in enumerate(scenes(150)):
        assert score(drawn(scene, index), scene) == Score(*[True] * 6), scene


@pytest.mark.parametrize("things", [1, 2])
def test_a_picture_of_another_colour_shape_size_place_or_background_is_scored_as_wrong_in_that_claim(things: int):
    first, second = Thing("red", "star"), Thing("blue", "ring", "large")
    scene = Scene((first, second)[:things], "left", "gray")
    others = {
        "colour": replace(scene, things=(replace(first, colour="orange"), second)[:things]),
        "shape": replace(scene, things=(replace(first, shape="triangle"), second)[:things]),
        "size": replace(scene, things=(replace(first, size="small"), second)[:things]),
        "place": replace(scene, place="right"),
        "background": replace(scene, background="beige"),
    }

    for claim, other in others.items():
        result = score(drawn(other), scene)

        assert [name for name in others if not getattr(result, name)] == [claim]
        assert result.is_right == (claim in {"size", "background"})


def test_two_things_that_have_swapped_their_colours_or_their_places_are_wrong():
    a, b = Thing("green", "circle"), Thing("pink", "square")
    asked = Scene((a, b), "above")

    swapped_colours = Scene((replace(a, colour="pink"), replace(b, colour="green")), "above")
    swapped_places = Scene((b, a), "above")
    same_said_otherwise = Scene((b, a), "below")

    assert not score(drawn(swapped_colours), asked).is_right
    assert not score(drawn(swapped_places), asked).is_right
    assert score(drawn(same_said_otherwise), asked).is_right


def test_a_missing_or_a_second_thing_and_a_shapeless_one_are_wrong():
    one, two = Scene((Thing("red", "circle"),), "left"), Scene((Thing("red", "circle"), Thing("blue", "star")), "left")
    smear = np.full((CANVAS, CANVAS, 3), 250, np.uint8)
    smear[60:68, 4:64] = grammar.COLOURS["red"]

    assert not score(drawn(two), one).count
    assert not score(drawn(one), two).count
    assert not score(np.full((CANVAS, CANVAS, 3), 250, np.uint8), one).count
    assert not score(smear, one).shape


@pytest.mark.parametrize("background", grammar.BACKGROUNDS)
def test_every_colour_and_shape_is_read_off_every_background_even_when_small(background: str):
    for colour, shape in product(grammar.COLOURS, grammar.SHAPES):
        (seen,), ground = read(drawn(Scene((Thing(colour, shape, "small"),), "center", background)))

        assert (seen.colour, seen.shape, seen.size, ground) == (colour, shape, "small", background)


def test_the_training_split_never_shows_a_held_out_combination():
    things, grounds, prompts = bank.draw_chunk(seed=5, index=0)
    assert len(things) == len(grounds) == len(prompts) == bank.CHUNK
    sides = {name: np.array(side) for name, side in grammar.SIDES.items()}
    seen: dict[int, set[tuple[str, str, str]]] = {1: set(), 2: set()}

    for rows in things:
        present = rows[rows[:, -1] == 1]
        for row, other in zip(present, present[::-1], strict=True):
            colour = min(grammar.COLOURS, key=lambda c: np.abs(row[5:8] * 255 - grammar.COLOURS[c]).sum())
            if len(present) == 1:
                place = min(grammar.POSITIONS, key=lambda p: np.abs(row[:2] - grammar.POSITIONS[p]).sum())
            else:
                place = max(sides, key=lambda s: float((row[:2] - other[:2]) @ sides[s]))
            seen[len(present)].add((colour, grammar.SHAPES[int(row[3])], place))

    for count, combinations in seen.items():
        assert combinations.isdisjoint(HELD_OUT[count])
        assert len(combinations) > 200, "the split is drawn widely enough for this test to mean something"


@pytest.mark.parametrize("things", [1, 2])
def test_every_held_out_scene_shows_a_held_out_combination_and_each_colour_and_shape_is_trained_elsewhere(things: int):
    rng = np.random.default_rng(1)

    for _ in range(300):
        scene = grammar.draw_scene(rng, things, held_out=True)
        places = [scene.place, grammar.OPPOSITE.get(scene.place, "")]
        shown = {(t.colour, t.shape, p) for t, p in zip(scene.things, places, strict=False)}
        assert shown & HELD_OUT[things]

    places = len(grammar.POSITIONS if things == 1 else grammar.SIDES)
    for colour, shape in product(grammar.COLOURS, grammar.SHAPES):
        assert sum(c == colour and s == shape for c, s, _ in HELD_OUT[things]) < places


def test_the_shipped_tokenizers_are_what_the_grammar_builds_every_time():
    shipped = (
        CLIPTokenizer.from_pretrained(WEIGHTS_DIR / "tokenizer"),
        T5Tokenizer.from_pretrained(WEIGHTS_DIR / "tokenizer_2"),
    )
    rng = np.random.default_rng(2)
    prompts = [grammar.write_prompt(scene, rng) for scene in scenes(200, seed=2)]

    for build, kept, specials in ((tokenizers.build_clip, shipped[0], 2), (tokenizers.build_t5, shipped[1], 1)):
        built, again = build(), build()
        assert len(kept) > 100, "a tokenizer built from the wrong argument has two entries and raises nothing"
        assert built.get_vocab() == again.get_vocab() == kept.get_vocab()
        assert (
            json.loads(built.backend_tokenizer.to_str())["model"]
            == json.loads(kept.backend_tokenizer.to_str())["model"]
        )
        for prompt in prompts:
            ids = kept(prompt).input_ids
            assert built(prompt).input_ids == ids
            assert len(ids) == len(prompt.replace(",", " ,").split()) + specials <= tokenizers.TEXT_LENGTH


def test_a_word_that_the_grammar_does_not_know_is_spelled_and_never_lost():
    t5, clip = tokenizers.build_t5(), tokenizers.build_clip()

    assert t5.tokenize("a sks") == ["▁a", "▁", "s", "k", "s"]
    assert t5.unk_token_id not in t5("Zebra-7 (new)!").input_ids
    assert "".join(clip.tokenize("sks")) == "sks</w>"
    assert t5.unk_token_id in t5("日本").input_ids
