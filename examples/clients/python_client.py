"""A job from Python: upload nothing, submit, follow, fetch what it made.

STOKER_API_URL=http://127.0.0.1:8000 STOKER_API_KEY=sk_...:... python examples/clients/python_client.py
"""

from __future__ import annotations

import os
import sys

from stoker.client import Client
from stoker.errors import InvalidInput


def main() -> None:
    """Run one job of the echo app and print its result."""
    with Client(os.environ["STOKER_API_URL"], os.environ["STOKER_API_KEY"]) as client:
        try:
            client.submit("examples/echo", {"text": "hello", "times": "many"})
        except InvalidInput as error:
            print(f"refused, as it should be: {error.errors[0]['msg']}", file=sys.stderr)

        job = client.submit("examples/echo", {"text": "hello from Python", "times": 3}, tags=["example"])

        # Reconnects by itself where it was cut: every state, log and output comes once, in order.
        for event in client.events(job.id):
            print(event.id, event.kind, event.data, file=sys.stderr)

        done = client.result(job.id)
        print(done.result)
        for output in done.outputs:
            print(client.download(output, f"out/{job.id}"))


if __name__ == "__main__":
    main()
