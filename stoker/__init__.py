"""Stoker: a self-hosted queue for warm multi-GPU models. What users import to write an app.

Light: a name is loaded when it is first asked for, and none of them needs an engine's library or torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stoker.app import App, endpoint
    from stoker.files import File, Image

__all__ = ["App", "File", "Image", "endpoint"]

_HOME = {"App": "stoker.app", "endpoint": "stoker.app", "File": "stoker.files", "Image": "stoker.files"}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'stoker' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
