"""For code written for fal: point its client here."""

from stoker.compat.fal.client import patch

__all__ = ["patch"]
