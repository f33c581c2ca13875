"""A replica that ends under its clients, killed or stopped: all go on at the other and miss nothing."""

from __future__ import annotations

import signal
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from benchmarks.api_load.place import Place
from benchmarks.api_load.settings import SILENCE_S, Counts

HOW = {"killed": signal.SIGKILL, "stopped": signal.SIGTERM}


@dataclass(frozen=True)
class Survived:
    """What came of one end. Outages: from the loss of a connection to the first that comes over the next one."""

    how: str
    clients: int
    reconnects: int
    missed: int
    out_of_order: int
    without_result: int
    outage_p50_ms: float
    outage_max_ms: float

    def __str__(self) -> str:
        return (
            f"replica {self.how}: {self.clients} clients, {self.reconnects} came back; rows missed {self.missed}, "
            f"twice or out of order {self.out_of_order}; without the final result {self.without_result}; "
            f"without a connection p50 {self.outage_p50_ms:.0f} ms, at most {self.outage_max_ms:.0f} ms"
        )


async def measure(place: Place, counts: Counts) -> AsyncIterator[Survived]:
    """End one of two replicas with half of the clients, and have events said before, meanwhile and after."""
    for how, sent in HOW.items():
        async with place.load() as load, place.node() as node, place.api() as ending, place.api() as staying:
            await place.submit(counts.replica_jobs)
            jobs = (await node.ask(do="claim", count=counts.replica_jobs))["jobs"]
            ports = [ending.port, staying.port]
            opened = await load.ask(do="open", ports=ports, key=place.key.key, jobs=jobs, each=counts.listeners_a_job)
            await node.ask(do="speak", rate=counts.rate, seconds=1.0)
            await ending.end(sent)
            said = await node.ask(do="speak", rate=counts.rate, seconds=3.0)
            await node.ask(do="finish")
            ended = await load.ask(do="heard", at_least={"log": said["each"]["log"], "final": 1}, limit_s=SILENCE_S)
        yield Survived(
            how,
            opened["open"],
            ended["reconnects"],
            ended["missing"]["log"],
            ended["out_of_order"],
            ended["missing"]["final"],
            statistics.median(ended["outages_ms"]),
            max(ended["outages_ms"]),
        )
