"""Clients of the HTTP API: curl, Python and a browser page."""
