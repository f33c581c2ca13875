"""Stoker on one machine: launchers of the embedded engines and of the whole local stack.

Real PostgreSQL, Valkey and SeaweedFS as ordinary child processes. It holds nothing that production uses: there the
engines are yours and this package is not imported. The command line and the tests call it.
"""
