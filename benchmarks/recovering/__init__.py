"""Parts of ``benchmarks.recovery``: its app, its nodes and what is done to them."""
