"""What a container's health check asks: does the API answer, or does a process with no port still work on Postgres?

python health.py http URL                   the URL answers 2xx
python health.py database APPLICATION       a session of that name has asked Postgres something within 30 seconds
"""

from __future__ import annotations

import os
import sys
import urllib.error
import urllib.request

TIMEOUT_S = 4
QUIET_S = 30


def http_answers(url: str) -> str | None:
    """What is wrong with ``url``, None if nothing is."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S):  # noqa: S310 (the compose file names it)
            return None
    except (urllib.error.URLError, OSError) as error:
        return str(error)


def database_knows(application: str) -> str | None:
    """What is wrong with the process whose sessions bear the name ``application``, None if nothing is."""
    import psycopg

    recent = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = left(%s, 63) AND state_change > now() - make_interval(secs => %s)
    """
    try:
        with psycopg.connect(os.environ["DATABASE_URL"], connect_timeout=TIMEOUT_S) as connection:
            row = connection.execute(recent, (application, QUIET_S)).fetchone()
    except psycopg.Error as error:
        return str(error)
    return None if row and row[0] else f"no session of {application!r} did anything for {QUIET_S} s"


if __name__ == "__main__":
    check = {"http": http_answers, "database": database_knows}[sys.argv[1]]
    sys.exit(check(sys.argv[2]))
