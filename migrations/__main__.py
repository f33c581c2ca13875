"""``python -m migrations``: bring the database of DATABASE_URL to the newest schema, or say where it is."""

from __future__ import annotations

import argparse
import os
import sys

from sqlalchemy.exc import OperationalError

import migrations
from stoker.errors import ConfigurationError

USAGE, UNREACHABLE = 2, 3


def main() -> int:
    """Migrate; the exit code."""
    parser = argparse.ArgumentParser(prog="stoker migrate", description=__doc__)
    parser.add_argument("--current", action="store_true", help="only write the revision that the database is at")
    arguments = parser.parse_args()
    database_url = os.environ.get("DATABASE_URL")
    if not database_url:
        return _fail(USAGE, "DATABASE_URL is not set", "Set DATABASE_URL=postgresql://user:password@host/name.")
    try:
        at = migrations.current(database_url) or "base" if arguments.current else migrations.upgrade(database_url)
    except ConfigurationError as error:
        return _fail(USAGE, str(error), error.hint)
    except OperationalError as error:
        return _fail(UNREACHABLE, str(error.orig).strip(), "Is the server up, and is DATABASE_URL right?")
    sys.stdout.write(f"{at}\n")
    return 0


def _fail(code: int, message: str, hint: str) -> int:
    sys.stderr.write(f"error: {message}\nhint: {hint}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
