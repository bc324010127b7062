"""Who computes a prompt: never far behind in load, and within that who remembers most of it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from bestiary.serve import prefixes
from bestiary.serve.prefixes import PAGE, Prefixes, names

PROMPTS = st.lists(st.integers(0, 3), max_size=6 * PAGE)


def named(prompt: list[int]) -> list[bytes]:
    return names(prompt, salt="", adapter=None)


@given(PROMPTS, PROMPTS)
def test_pages_have_one_name_exactly_as_far_as_prompts_are_alike(one: list[int], other: list[int]) -> None:
    pairs = zip(named(one), named(other), strict=False)
    for i, (mine, theirs) in enumerate(pairs, 1):
        assert (mine == theirs) == (one[: i * PAGE] == other[: i * PAGE])
    assert len(named(one)) == len(one) // PAGE


def test_the_page_is_the_engines() -> None:
    from bestiary.engine import pages

    assert prefixes.PAGE == pages.PAGE


def test_who_asks_and_which_adapter_share_nothing() -> None:
    prompt = [1] * PAGE
    found = [
        names(prompt, salt=salt, adapter=adapter)[0] for salt in ("", "a") for adapter in (None, "a", "")
    ]
    assert len(set(found)) == len(found)


LOADS = st.dictionaries(st.integers(0, 7), st.integers(0, 40), min_size=1)


@given(st.lists(st.tuples(PROMPTS, st.integers(0, 7)), max_size=8), PROMPTS, LOADS, st.integers(0, 8))
def test_a_choice_is_within_the_slack_and_no_other_there_remembers_more(
    sent: list[tuple[list[int], int]], prompt: list[int], loads: dict[int, int], slack: int
) -> None:
    known: Prefixes[int] = Prefixes(slack)
    for before, replica in sent:
        known.remember(named(before), replica)
    chosen = known.choose(named(prompt), loads)
    least = min(loads.values())
    assert loads[chosen] - least <= slack

    def alike(replica: int) -> int:
        """By the prompts themselves: full pages that one sent there begins with too."""
        found = [
            next(
                (i for i in range(len(prompt) // PAGE, 0, -1) if before[: i * PAGE] == prompt[: i * PAGE]), 0
            )
            for before, whose in sent
            if whose == replica
        ]
        return max(found, default=0)

    near = [one for one, load in loads.items() if load - least <= slack]
    assert alike(chosen) == max(map(alike, near))
    fewest = min(loads[one] for one in near if alike(one) == alike(chosen))
    assert loads[chosen] == fewest


def test_two_that_route_agree_and_spread_prompts() -> None:
    rng = random.Random(1)
    prompts = [[rng.randrange(256) for _ in range(PAGE)] for _ in range(400)]
    loads = dict.fromkeys(range(4), 0)
    first = [Prefixes[int](2).choose(named(prompt), loads) for prompt in prompts]
    assert first == [Prefixes[int](2).choose(named(prompt), loads) for prompt in prompts]
    # 100 of 400 each, sqrt(400 * 1/4 * 3/4) = 8.7: four deviations.
    assert all(65 <= first.count(one) <= 135 for one in range(4))


def test_what_is_remembered_has_a_bound_and_a_prompts_beginning_stays_longest() -> None:
    known: Prefixes[int] = Prefixes(0)
    longest = prefixes._MOST * PAGE
    prompts = [[i] + [0] * (longest - 1) for i in range(prefixes._KEPT // prefixes._MOST + 1)]
    for prompt in prompts:
        known.remember(named([*prompt, 1, 2, 3] * 2), 0)
    assert known.shared(named(prompts[0]), 0) == 0
    assert known.shared(named(prompts[-1]), 0) == prefixes._MOST
    known.remember(named([7] * PAGE), 0)
    # The page that went was the end of the oldest prompt.
    assert known.shared(named(prompts[1]), 0) == prefixes._MOST - 1


def test_a_replica_that_lost_all_is_remembered_for_nothing() -> None:
    known: Prefixes[str] = Prefixes(4)
    pages = named([1] * 3 * PAGE)
    for one in "ab":
        known.remember(pages, one)
    known.forget("a")
    assert (known.shared(pages, "a"), known.shared(pages, "b")) == (0, 3)
    known.keep(["a"])
    assert known.shared(pages, "b") == 0
