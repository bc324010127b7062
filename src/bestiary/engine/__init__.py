"""Continuous batching: many answers under way at once, each step one forward pass of the model.

pages      which pages of the cache are free, and which hold what several sequences begin with
sequence   one answer: its tokens, how many are computed, its pages
scheduler  who computes how many tokens next, and who gives way
runner     from the work of a step to logits
engine     jobs in, chunks out
"""

from .engine import Engine, Stats
from .opening import open_engine
from .sequence import Job, Reading, Update

__all__ = ["Engine", "Job", "Reading", "Stats", "Update", "open_engine"]
