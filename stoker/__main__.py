"""``python -m stoker``: the command line, where the ``stoker`` script is not on the path."""

from __future__ import annotations

from stoker.cli import main

if __name__ == "__main__":
    main()
