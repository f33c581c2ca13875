"""Shown: a request's path as logs and answers may have it, without what gives a right to whoever reads it.

Pure. The edge logs it, and an error that names a path names this one.
"""

from __future__ import annotations

import re

from starlette.types import Scope

SECRET_PART = re.compile(
    # The token of an output, the id of a public file, an upload's in any of the forms that a UUID has.
    r"(?<=/outputs/)[^/]+|(?<=/cdn/files/file_)[^/]+|(?<=/uploads/)[^/]+|(?<=/multipart/)[^/]+"
    # A key or an upload token that somebody took for a part of an address.
    r"|(?<=sk_)\w+[:.][^/\s]+"
)
"""Who knows it may read the output or the file, send the upload's bytes, or do all that a key may."""


def path(scope: Scope) -> str:
    """The path without its secret parts."""
    return SECRET_PART.sub("***", scope["path"])
