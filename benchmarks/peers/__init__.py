"""What ``benchmarks/runner.py`` sets side by side: our runner, fal.distributed, raw ZMQ and bare torch."""
