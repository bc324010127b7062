"""Calls of functions in what a model writes: found as the text comes, by the form that its template teaches.

A template that tells a model of tools also writes the calls of earlier turns, so it shows their form. Each
form is data (`styles`): the mark in the template that tells of it, the control tokens that are part of it,
and which of a few readers (`readers`) takes it, with what reads the body (`bodies`, `literals`). Text is held
back only while it may belong to a call. What is not a whole, well-formed call of a function that the model
was told of is text, as it stands. Nothing that a model writes is executed, compiled or evaluated.
"""

from __future__ import annotations

from .bodies import Call, Event
from .reading import Reading
from .styles import FORCED, Style, of

__all__ = ["FORCED", "Call", "Event", "Reading", "Style", "of"]
