"""Modules that keep their weights packed. They replace plain ones from outside; no model knows of them."""
