"""The roster as one page of HTML that asks nobody for anything: its style and its script are in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files

from ..roster import Checkpoint, Entry
from ..roster.entry import Words
from ..roster.lineage import Node, ancestors, chain, descendants, verdict
from ..roster.search import params, sizes
from .graph import drawing
from .labels import COMMERCIAL, GROUPS, HOW, LABELS, chinese_name
from .listing import size_words
from .markup import Markup, joined, tag

GENERATOR = "bestiary list --html"
_SIZES = (("0-1", "< 1B"), ("1-5", "1-5B"), ("5-10", "5-10B"), ("10-20", "10-20B"), ("20-", "> 20B"))
_HEADS = (
    ("name", "Name", "名称"), ("class", "Class", "类型"), ("size", "Parameters", "参数量"),
    ("use", "Commercial", "商用"), ("languages", "Languages", "语言"), ("year", "Date", "日期"),
    ("group", "Part", "分组"), ("from", "Organisation", "机构"),
)  # fmt: skip


def page(entries: Sequence[Entry]) -> str:
    """Return the page: a table of these systems, a drawing of their lineage, and a card for each."""
    style, script = (
        Markup((files(__package__) / name).read_text("utf-8")) for name in ("page.css", "page.js")
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_policy(style, script)),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="generator", content=GENERATOR),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", "The bestiary: open language models and what they were made from"),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("a", "Skip to the table", href="#systems", class_="skip"),
        _header(entries),
        tag("main", _form(entries), _table(entries), _graph(entries), _cards(entries)),
        tag("script", script),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _policy(style: str, script: str) -> str:
    """Nothing may be fetched, and nothing runs but the one script and style that are here."""
    said = {"style-src": style, "script-src": script}
    hashes = [f"{what} 'sha256-{_hash(text)}'" for what, text in said.items()]
    return "; ".join(["default-src 'none'", *hashes, "base-uri 'none'", "form-action 'none'"])


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _both(words: Words | tuple[str, str], element: str = "span") -> Markup:
    """A text in both languages; the script leaves the reader's."""
    en, zh = words if isinstance(words, tuple) else (words.en, words.zh)
    space = Markup(" ") if element == "span" else Markup("")
    texts = [tag(element, text, lang=lang, class_="other-words") for lang, text in (("en", en), ("zh", zh))]
    return Markup(space.join(texts))


def _header(entries: Sequence[Entry]) -> Markup:
    counts = [sum(entry.group == group for entry in entries) for group in GROUPS]
    told = [
        "; ".join(f"{titles[i]}: {count}" for titles, count in zip(GROUPS.values(), counts, strict=True))
        for i in range(2)
    ]
    about = (
        "Open language models: who made them, from what, under which licences, and what each is known for.",
        "开放的语言模型：谁做的、来自哪里、以什么许可证发布、因何闻名。",
    )
    return tag("header", tag("h1", "Bestiary"), _both(about, "p"), _both((told[0], told[1]), "p"))


def _form(entries: Sequence[Entry]) -> Markup:
    """The filters; hidden until the script that they need runs."""
    words = tag(
        "label",
        _both(("Words", "搜索")),
        tag("input", name="words", type="search", autocomplete="off"),
        class_="words",
    )
    kinds = sorted({entry.kind for entry in entries})
    features = sorted({feature for entry in entries for feature in entry.features})
    languages = sorted({language for entry in entries for language in entry.languages})
    return tag(
        "form",
        words,
        _select("kind", ("Class", "类型"), [(_word(kind), kind) for kind in kinds]),
        _select("size", ("Parameters", "参数量"), _SIZES),
        _select("use", ("Commercial use", "商用"), [(word, both[0]) for word, both in COMMERCIAL.items()]),
        _select("language", ("Language", "语言"), [(word, word) for word in languages]),
        _select("feature", ("Feature", "特点"), [(word, word) for word in features]),
        tag("button", _both(("All", "全部")), type="reset"),
        tag("button", _both(("中文", "English")), type="button", id="language"),
        tag("p", "", id="count", role="status"),
        hidden=True,
        role="search",
    )


def _select(name: str, label: tuple[str, str], choices: Iterable[tuple[str, str]]) -> Markup:
    options = [tag("option", "-", value="")] + [tag("option", text, value=value) for value, text in choices]
    return tag("label", _both(label), tag("select", joined(options), name=name))


def _table(entries: Sequence[Entry]) -> Markup:
    heads = [tag("th", _both((en, zh)), scope="col", class_=f"c-{key}") for key, en, zh in _HEADS]
    table = tag(
        "table",
        tag("caption", _both(("Each name leads to its card.", "点名称看卡片。"))),
        tag("thead", tag("tr", joined(heads))),
        tag("tbody", joined([_row(entry) for entry in entries])),
    )
    return tag(
        "section", tag("div", table, class_="scrolls", tabindex="0", aria_label="The table"), id="systems"
    )


def _row(entry: Entry) -> Markup:
    word, counts = verdict(chain(entry)), sizes(entry)
    chinese = chinese_name(entry)
    name = (
        tag("a", entry.name, href=f"#{entry.id}"),
        *((" ", tag("span", chinese, lang="zh")) if chinese else ()),
    )
    cells = [
        tag("th", *name, scope="row", data_value=entry.name.lower()),
        tag("td", entry.kind, class_="c-class"),
        tag("td", size_words(counts) or "-", class_="number", data_value=max(counts, default=0)),
        tag("td", _both(_USE[word]), class_=f"said {word}", data_value=list(COMMERCIAL).index(word)),
        tag("td", ", ".join(entry.languages), class_="c-languages"),
        tag("td", entry.date, class_="number", data_value=entry.date.replace("-", "").ljust(8, "0")),
        tag("td", _both(GROUPS[entry.group]), class_="c-group", data_value=list(GROUPS).index(entry.group)),
        tag("td", entry.organisation, class_="c-from"),
    ]
    said = (entry.id, *entry.aliases, entry.about.en, entry.about.zh, entry.claim.en, entry.claim.zh)
    return tag(
        "tr",
        joined(cells),
        data_id=entry.id,
        data_kind=_word(entry.kind),
        data_use=word,
        data_language=" ".join(entry.languages),
        data_feature=" ".join(entry.features),
        data_sizes=" ".join(map(str, counts)),
        data_said=" ".join((*said, *(one.id for one in entry.checkpoints))),
    )


_USE = {"yes": ("yes", "可以"), "conditions": ("on conditions", "有条件"), "no": ("no", "禁止"),
        "unstated": ("not said", "未说明")}  # fmt: skip


def _graph(entries: Sequence[Entry]) -> Markup:
    en = (
        "Each arrives from the left. Dashed lines are adapters and differences, dotted ones ideas and parts, "
        "not weights; dashed boxes are no systems of this roster. The colour is what the licences allow."
    )
    zh = "自左向右。虚线为适配器或差值，点线为架构、蒸馏或部件；虚线框不在本名录中。颜色表示许可证。"
    inside = (_both((en, zh), "p"), drawing(entries))
    return tag(
        "section",
        tag("h2", _both(("What was made from what", "谱系"))),
        tag("div", *inside, class_="scrolls graph", tabindex="0", aria_label="The drawing"),
        id="lineage",
    )


def _cards(entries: Sequence[Entry]) -> Markup:
    here = frozenset(entry.id for entry in entries)
    cards = tag("div", joined([_card(entry, here) for entry in entries]), class_="cards")
    return tag("section", tag("h2", _both(("Cards", "卡片"))), cards, id="cards")


def _card(entry: Entry, here: frozenset[str]) -> Markup:
    chinese = chinese_name(entry)
    also = (" ", tag("span", chinese, lang="zh")) if chinese else ()
    instead = tag("div", _both(entry.instead, "p"), class_="instead") if entry.instead else None
    count = len(entry.checkpoints)
    more = tag(
        "details",
        tag("summary", _both((f"More; published weights: {count}", f"更多；已发布的权重：{count}"))),
        _facts(_more(entry, here)),
    )
    return tag(
        "article",
        tag("h3", entry.name, *also, " ", tag("small", entry.id)),
        instead,
        _both(entry.about, "p"),
        _facts(_first(entry, here)),
        more,
        id=entry.id,
    )


def _facts(said: Iterable[tuple[str, str | Markup]]) -> Markup:
    """Rows of a label and what it is of; those without anything are left out."""
    rows = [tag("dt", _both(LABELS[key]) if key else "") + tag("dd", text) for key, text in said if text]
    return tag("dl", Markup("".join(rows)))


def _first(entry: Entry, here: frozenset[str]) -> Iterator[tuple[str, str | Markup]]:
    word = verdict(chain(entry))
    yield "by", f"{entry.organisation}, {entry.date}"
    yield "class", f"{entry.kind} ({', '.join(entry.family)})" if entry.family else entry.kind
    yield "claim", _both(Words(entry.claim.en, entry.claim.zh))
    yield "from", _tree(ancestors(entry), here)
    yield "money", tag("span", _both(COMMERCIAL[word]), class_=word)


def _more(entry: Entry, here: frozenset[str]) -> Iterator[tuple[str, str | Markup]]:
    yield "into", _tree(descendants(entry), here)
    yield "features", ", ".join(entry.features)
    yield "training", ", ".join(entry.training)
    yield "proof", ", ".join(entry.claim.proof)
    yield "licence", f"code {entry.licence.code}; weights {entry.licence.weights}; data {entry.licence.data}"
    yield "", entry.licence.clause
    yield "tokenizer", "; ".join((entry.tokenizer.kind, *entry.tokenizer.facts)) if entry.tokenizer else ""
    if entry.checkpoints:
        yield "checkpoints", tag("ul", joined([_weight(one) for one in entry.checkpoints]))
    yield "links", joined([_link(link) for link in entry.links], " ")


def _tree(nodes: Sequence[Node], here: frozenset[str]) -> Markup:
    if not nodes:
        return Markup("")
    return tag("ul", joined([_branch(node, here) for node in nodes]))


def _branch(node: Node, here: frozenset[str]) -> Markup:
    name = tag("a", node.name, href=f"#{node.name}") if node.name in here else node.name
    note = f"({node.note})" if node.note else ""
    how = tag("span", _both(HOW[node.how]), class_="soft")
    return tag("li", name, " ", how, " ", note, _tree(node.below, here))


def _weight(one: Checkpoint) -> Markup:
    size = params(one)
    facts = (
        size_words([size]) if size else None,
        f"{one.context:,} tokens" if one.context else None,
        None if one.form == "transformers" else one.form,
        f"prompt {one.prompt}" if one.prompt else None,
        f"on {' + '.join(one.base)}" if one.base else None,
        one.licence,
        one.note,
    )
    return tag("li", tag("code", one.id), " ", tag("span", ", ".join(filter(None, facts)), class_="soft"))


def _link(address: str) -> Markup:
    """A link out, which is followed only by who clicks it."""
    return tag("a", address.removeprefix("https://"), href=address, rel="noreferrer noopener")


def _word(kind: str) -> str:
    """A class as one word: filters compare words."""
    return kind.replace(" ", "-")
