"""Quiet: libraries' progress bars and hints that say nothing to an operator. Call it before diffusers is imported."""

from __future__ import annotations

import os
from typing import Any


def quiet() -> None:
    """Leave errors, and nothing else, of transformers, diffusers and the hub client."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    transformers_logging: Any = logging
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    # Only now: importing diffusers warns, through transformers, of image processors that are not used.
    from diffusers.utils import logging as diffusers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
