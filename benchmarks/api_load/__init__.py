"""The parts of ``benchmarks/api.py``: the API process under load, and what loads it."""
