"""The wire of fal's clients over the same core: what they send is turned into ours, what comes of it into theirs.

It has no logic of its own: jobs are submitted, cancelled and read as under ``/v1``. docs/from-fal.md says what differs.
"""
