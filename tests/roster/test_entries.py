"""The roster's data: what an entry must say, and that it is true where it can be looked up."""

from __future__ import annotations

import pytest

from bestiary import families, roster
from bestiary.adopt import ARITHMETICS
from bestiary.roster import Entry
from bestiary.roster import lineage as chains
from bestiary.roster.published import by_id
from bestiary.text import prompts
from tests.goldens import STORED, root

ENTRIES = list(roster.entries().values())


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.id)
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    return found


def test_it_says_what_a_reader_wants_to_know(entry: Entry) -> None:
    texts = (entry.about.en, entry.about.zh, entry.claim.en, entry.claim.zh, entry.licence.clause)
    assert all(len(text) > 8 for text in texts)
    assert all(any("\u4e00" <= c <= "\u9fff" for c in text) for text in (entry.about.zh, entry.claim.zh))
    assert entry.links
    assert all(link.startswith("https://") for link in entry.links)
    assert (entry.group == "list") == (entry.listed is not None)


def test_its_checkpoints_have_a_size(entry: Entry) -> None:
    """Each checkpoint of a system that is computed here has a row of sizes, its own or another's."""
    for one in entry.checkpoints:
        if entry.instead is None:
            assert one.like is None or one.id not in by_id(), "it has a row of its own"
            assert (one.like or one.id) in by_id()


def test_its_families_are_known(entry: Entry) -> None:
    known = {*families.FAMILIES.values(), *(name for *_, name in families.TELLING)}
    assert entry.instead is not None or entry.family
    assert set(entry.family) <= known


def test_its_prompts_are_known(entry: Entry) -> None:
    names = {one.prompt for one in entry.checkpoints if one.prompt is not None}
    assert names <= prompts.named().keys()
    assert bool(names) == bool({"chat", "instruct"} & set(entry.features))


def test_what_it_was_made_from_is_known(entry: Entry) -> None:
    """A base without a slash is an entry of the roster, and no system is made from itself."""
    for step in entry.lineage:
        assert "/" in step.base or " " in step.base or step.base in roster.entries()
        assert step.base != entry.id


def test_its_claim_has_a_proof(entry: Entry) -> None:
    assert entry.claim.proof
    for proof in entry.claim.proof:
        kind, _, name = proof.partition(" ")
        assert name
        assert kind != "parameters" or name in by_id()
        assert kind != "prompt" or name in prompts.named()


# What is no model until its base is added to it, and which of these are sums whose arithmetic is named.
PARTIAL = {"delta", "adapter", "xor", "subtracted", "easylm"}
SUMS = {"delta", "subtracted"}
LLAMA = "LLaMA License"


def test_what_goes_on_a_base_names_it(entry: Entry) -> None:
    """And only that; a base is a checkpoint of the roster, and a sum has its arithmetic."""
    for one in entry.checkpoints:
        assert bool(one.base) == (one.form in PARTIAL), one.id
        assert all(roster.find(base) is not None for base in one.base), one.id
        assert (one.how is not None) == (one.form in SUMS), one.id
        assert one.how is None or one.how in ARITHMETICS, one.id


def test_its_features_are_those_of_its_checkpoints(entry: Entry) -> None:
    forms = {one.form for one in entry.checkpoints}
    assert "adapter" not in forms or "adapter" in entry.features
    assert "delta" not in forms or "delta" in entry.features


def test_its_own_proof_shows_its_claim(entry: Entry) -> None:
    """A case that proves the claim is among those that are run for this entry."""
    for proof in entry.claim.proof:
        kind, _, name = proof.partition(" ")
        assert kind != "reference" or name in entry.proof.references
        assert kind != "tokenizer" or name in entry.proof.tokenizers


def test_no_licence_allows_more_than_what_it_was_made_from(entry: Entry) -> None:
    """Nothing that was made from LLaMA may be used for money, and nothing non-commercial is called free."""
    for one in entry.checkpoints:
        said = one.commercial or entry.licence.commercial
        words = one.licence or entry.licence.weights
        assert words != LLAMA or said == "no", one.id
        assert said == "no" or not words.startswith("CC-BY-NC"), one.id
        assert said not in {"yes", "conditions"} or one.form != "unpublished", one.id
        assert said != "yes" or chains.verdict(chains.chain(entry, one)) == "yes", one.id
        assert all(
            said == "no"
            for base in one.base
            if (root := roster.find(base)) is not None and root.id == "llama"
        ), one.id


def test_its_proofs_are_among_the_reference_results(entry: Entry) -> None:
    """Those that the package carries are always at hand, the others only where the results are."""
    if (folder := root()) is None:
        return
    for name in entry.proof.references:
        assert (folder / name).is_dir() or (STORED / name).is_dir(), name
    assert all((folder / "tokenizers" / name).is_dir() for name in entry.proof.tokenizers)
    assert entry.proof.prompts is None or (folder / "prompts" / f"{entry.proof.prompts}.json").is_file()


def test_every_name_finds_its_system() -> None:
    names: dict[str, str] = {}
    for entry in ENTRIES:
        for name in {
            roster.normal(name) for name in (entry.id, entry.name, entry.listed or entry.id, *entry.aliases)
        }:
            assert names.setdefault(name, entry.id) == entry.id, name
            found = roster.find(name)
            assert found is not None
            assert found.id == entry.id
    assert all(
        roster.find(one.id) is entry for entry in ENTRIES for one in entry.checkpoints if "/" in one.id
    )
    assert roster.find("no such system") is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"group": "lists"}, "group"),
        ({"date": "March 2023"}, "date"),
        ({"kind": "robot"}, "kind"),
        ({"features": ["magic"]}, "magic"),
        ({"colour": "red"}, "colour"),
        ({"about": {"en": "alone"}}, "zh"),
        ({"checkpoint": [{"id": "a/b", "form": "clay"}]}, "clay"),
    ],
)
def test_an_entry_that_says_something_else_is_refused(change: dict[str, object], named: str) -> None:
    import tomllib
    from importlib.resources import files

    row = tomllib.loads((files(roster) / "minilm.toml").read_text("utf-8"))
    with pytest.raises((TypeError, ValueError), match=named):
        roster.read("minilm", {**row, **change})
