"""The data plane, one process tree a node: a supervisor with leases and credentials, and an app host for each app."""
