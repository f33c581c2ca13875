"""Wishes: what the clients of a run ask for, one after another, from its seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Mix:
    """How long jobs last, and how many in a hundred last so long. ``oddity``: how common the uncommon is."""

    seconds: tuple[float, ...] = (0.02, 1.0, 20.0)
    weights: tuple[float, ...] = (90, 8, 2)
    oddity: float = 1.0


SHORT = Mix(seconds=(0.02, 0.3, 1.5), oddity=2.0)
ODD = Mix(seconds=(0.02, 0.2, 1.0), oddity=5.0)


@dataclass(frozen=True)
class Wish:
    """One job that somebody wants. ``op`` is its tag."""

    op: str
    app: str
    endpoint: str
    tenant: int
    seconds: float
    writes: bool
    fails: bool
    has_webhook: bool
    key: str | None
    is_posted_twice: bool
    priority: int
    delay_s: float | None
    start_timeout_s: float | None
    cancel_after_s: float | None
    is_cancelled_in_sql: bool
    is_followed: bool


def wishes(seed: int, name: str, mix: Mix, tenants: int) -> Iterator[Wish]:
    """For ever. ``name`` tells the wishes of several runs on one database apart."""
    for number in range(10**9):
        chance = random.Random(f"{seed} {number}")

        def one_in(many: float, chance: random.Random = chance) -> bool:
            return chance.random() * many < 1

        seconds = chance.choices(mix.seconds, mix.weights)[0]
        expires = one_in(50 / mix.oddity)
        keyed = not one_in(8)
        # A long job holds the only seat of an app's ranks.
        is_ranked = one_in(4) and (seconds < mix.seconds[-1] or one_in(5))
        yield Wish(
            op=f"{name}-{number}",
            app="chaos/ranked" if is_ranked else "chaos/mixed",
            endpoint="/parent" if not is_ranked and one_in(15 / mix.oddity) else "/",
            tenant=chance.randrange(tenants),
            seconds=seconds,
            writes=one_in(3),
            fails=one_in(50 / mix.oddity),
            has_webhook=one_in(4),
            key=f"{name}-{number}" if keyed else None,
            is_posted_twice=keyed and one_in(10),
            priority=chance.randrange(10),
            delay_s=chance.uniform(0.2, 2.0) if expires or one_in(15 / mix.oddity) else None,
            start_timeout_s=0.001 if expires else None,
            cancel_after_s=chance.uniform(0, 2 * seconds) if one_in(20 / mix.oddity) else None,
            is_cancelled_in_sql=one_in(3),
            is_followed=one_in(4),
        )
