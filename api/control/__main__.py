"""``python -m api.control``: the control loop as a process."""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from api.control.deliverer import Deliverer
from api.control.duties import Control
from api.control.loop import run_duties
from api.control.metrics import ControlMetrics
from stoker import crash_points, log, metrics, ready
from stoker.bus import Bus
from stoker.database import make_engine
from stoker.errors import ConfigurationError
from stoker.queue import Doorbell
from stoker.settings import ControlSettings
from stoker.storage import Storage

logger = log.get(__name__)


async def run(settings: ControlSettings, counted: ControlMetrics) -> None:
    """Do the duties until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    db = make_engine(settings.database_url, application_name="stoker-control")
    bus = Bus(settings.redis_url, settings.progress_redis_url)
    doorbell, s3 = Doorbell(settings.redis_url), settings.s3
    storage = Storage(s3.endpoint_url, s3.access_key_id, s3.secret_access_key, s3.bucket, s3.region)
    deliverer = Deliverer(
        db,
        public_url=settings.public_url,
        allowed_hosts=settings.webhook_allowed_hosts,
        timeout_s=settings.webhook_timeout_s,
        pauses_s=settings.webhook_pauses_s,
        metrics=counted,
    )
    duties = Control(settings, db, bus, doorbell, storage, deliverer, counted).duties()
    try:
        ready.announce({"duties": [duty.name for duty in duties]})
        logger.info("control_started", duties=[duty.name for duty in duties])
        await run_duties(duties, stopping, counted)
    finally:
        await deliverer.close()
        await doorbell.close()
        await bus.close()
        await db.dispose()


def main() -> int:
    try:
        settings = ControlSettings.load()
        counted = ControlMetrics()
        metrics.serve(counted.registry, settings.metrics_host, settings.metrics_port)
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\nhint: {error.hint}\n")
        return 2
    log.configure(settings.log_format, service="control")
    crash_points.arm(settings.crash_at)
    uvloop.run(run(settings, counted))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
