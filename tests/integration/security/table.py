"""The table: all rows of all kinds."""

from __future__ import annotations

from tests.integration.security.kinds import (
    auth,
    bombs,
    files,
    filters,
    jwks,
    limits,
    paths,
    pickles,
    signatures,
    smuggling,
    ssrf,
    streams,
    tenants,
)

ROWS = (
    *auth.ROWS,
    *tenants.ROWS,
    *ssrf.ROWS,
    *paths.ROWS,
    *bombs.ROWS,
    *limits.ROWS,
    *smuggling.ROWS,
    *filters.ROWS,
    *streams.ROWS,
    *jwks.ROWS,
    *signatures.ROWS,
    *pickles.ROWS,
    *files.ROWS,
)
