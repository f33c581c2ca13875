"""Builds the two fixed tokenizers of shapes-128: a token for each word it knows, single characters for any other.

Deterministic, unlike a trained tokenizer; ``train`` ships what is built here as ``tokenizer.json``.
"""

import re
import string
from collections import Counter
from itertools import pairwise

from transformers import CLIPTokenizer, T5Tokenizer

from worker_node.models.shapes128 import grammar

TEXT_LENGTH = 32
"""Tokens of a prompt, in both encoders."""


def words() -> list[str]:
    """Every word of the grammar, sorted."""
    phrases: list[str] = [*grammar.COLOURS, *grammar.SHAPES, *grammar.SIZES, *grammar.BACKGROUNDS, *grammar.OPENINGS]
    for table in (grammar.SYNONYMS, grammar.PLACES, grammar.RELATIONS, grammar.BOTH_NAMED):
        phrases += [phrase for choices in table.values() for phrase in choices]
    phrases += [*grammar.GROUNDS, "a an the that is"]
    return sorted({word for phrase in phrases for word in re.findall(r"[a-z]+", re.sub(r"\{\w*\}", " ", phrase))})


def build_t5() -> T5Tokenizer:
    """Whole words, in any usual case, score better than their letters, so a known word is one piece."""
    known = [form for word in words() for form in (word, word.capitalize())]
    vocab = {"<pad>": 0.0, "</s>": 0.0, "<unk>": -20.0}
    vocab |= {"▁" + word: -1.0 for word in known}
    vocab |= {
        piece: -10.0
        for piece in ["▁", *string.ascii_letters, *string.digits, *string.punctuation]
        if piece not in vocab
    }
    vocab |= {"▁" + word.upper(): -1.0 for word in words()}
    return T5Tokenizer(vocab=list(vocab.items()), extra_ids=0, model_max_length=TEXT_LENGTH)


def build_clip() -> CLIPTokenizer:
    """Byte pairs merged in a fixed order until each known word is one token."""
    byte_signs = _byte_signs()
    merges = _merges(words())
    pieces = [*byte_signs, *(sign + "</w>" for sign in byte_signs), *(left + right for left, right in merges)]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=TEXT_LENGTH)


def _merges(known: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges, most frequent first and ties by spelling: the same on every machine."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in known]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for parts in spelled for pair in pairwise(parts))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelled = [_merged(parts, best) for parts in spelled]


def _merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for part in parts:
        if out and (out[-1], part) == pair:
            out[-1] += part
        else:
            out.append(part)
    return out


def _byte_signs() -> list[str]:
    """A printable sign for each of the 256 bytes, as byte-level BPE writes them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + index) for index, _ in enumerate(others)]
