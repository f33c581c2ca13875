"""How long a claim takes as the queue grows, in the cases in which a plain queue becomes slow.

    python -m benchmarks.claim [--rows 1000 100000 1000000] [--claims 400] [--cases plain,capped,future]
                               [--database-url URL]

On a private PostgreSQL with durable writes, or on the server of ``--database-url``, in databases of its own. Ends with
1 where p50 is more than 1.5 times that of the shortest queue. What is measured: ``benchmarks.queue_peers.claims``.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict

from benchmarks.databases import server
from benchmarks.peers.figures import Figures
from benchmarks.queue_peers import claims
from benchmarks.queue_peers.thresholds import verdicts

ROWS = [1_000, 100_000, 1_000_000]


def main() -> int:
    """Measure and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS, help="queued")
    parser.add_argument("--claims", type=int, default=400)
    parser.add_argument("--cases", type=lambda text: text.split(","), default=list(claims.CASES))
    parser.add_argument("--database-url")
    options = parser.parse_args()
    measured: dict[str, dict[int, float]] = defaultdict(dict)
    with server(options.database_url) as server_url:
        for name, rows, p50, p99 in claims.measure(server_url, options.rows, options.claims, options.cases):
            measured[name][rows] = p50
            times = p50 / measured[name][min(measured[name])]
            told = f"claim, {name:22} {rows:>9,} rows: p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {times:4.2f} times"
            print(f"{told}  (load {os.getloadavg()[0]:.1f})", flush=True)
    judged = [verdict for verdict in verdicts(Figures(), measured) if verdict.measure.startswith("claim")]
    print("\n" + "\n".join(f"  {verdict}" for verdict in judged))
    return int(not all(verdict.is_met for verdict in judged))


if __name__ == "__main__":
    raise SystemExit(main())
