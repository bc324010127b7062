"""Bestiary: open language models, one Transformer core, no remote code."""
