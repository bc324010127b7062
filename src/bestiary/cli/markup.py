"""HTML and SVG from values: whatever is put in is escaped, here and nowhere else."""

from __future__ import annotations

from html import escape


class Markup(str):
    """A text that is HTML already."""

    __slots__ = ()


_VOID = ("meta", "input", "br")


def tag(name: str, /, *children: str | None, **attributes: str | float | bool | None) -> Markup:
    """Return an element. A child that is no Markup is text, and is escaped; None is left out.

    An attribute is written with a trailing _ where Python has its name, and _ for -; True stands alone.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            spelt = key.rstrip("_").replace("_", "-")
            parts.append(spelt if value is True else f'{spelt}="{escape(str(value))}"')
    inside = "".join(child if isinstance(child, Markup) else escape(child) for child in children if child)
    return Markup(f"<{' '.join(parts)}>" + ("" if name in _VOID else f"{inside}</{name}>"))


def joined(parts: list[Markup], between: str = "") -> Markup:
    """Return elements one after another; `between` is text."""
    return Markup(escape(between).join(parts))
