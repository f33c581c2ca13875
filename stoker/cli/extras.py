"""What a command needs beyond the base install, asked for before it is imported."""

from __future__ import annotations

import importlib.util

from stoker.errors import ConfigurationError


def require(module: str, *, extra: str) -> None:
    """Make sure that ``module`` can be imported.

    Raises:
        ConfigurationError: it is not installed; the hint names the extra that brings it.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigurationError(
            f"this command needs {module}, which is not installed",
            hint=f"In the project's folder: pip install -c constraints.txt -e '.[{extra}]'",
        )
