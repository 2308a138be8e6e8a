"""Pictures from plain numbers and arrays; no torch, and nothing of ours is known here."""

from __future__ import annotations
