"""The app host: one process for each app. Imports the user's module, runs its endpoints and owns its ranks.

Holds no credentials. ``worker_node.host`` starts it, speaks ``protocol`` with it over a private socket and outlives it.
"""
