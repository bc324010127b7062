"""Parity certificates: what a system computes here, against what its authors' own code computed."""

from __future__ import annotations
