"""The data plane: one process tree a node. A supervisor that holds leases and credentials, and an app host for each app."""
