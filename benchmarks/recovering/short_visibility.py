"""A node whose broker gives a message up after 60 s: what would have Celery deliver a longer job again.

python -m benchmarks.recovering.short_visibility (the arguments of worker_node)
"""

from __future__ import annotations

import runpy

from celery import Celery

VISIBILITY = {"visibility_timeout": 60, "unacked_restore_interval": 1, "unacked_restore_throttle": 1}


def main() -> None:
    import stoker.queue

    make = stoker.queue.make_celery

    def make_impatient(redis_url: str) -> Celery:
        celery = make(redis_url)
        celery.conf.broker_transport_options = {**celery.conf.broker_transport_options, **VISIBILITY}
        return celery

    stoker.queue.make_celery = make_impatient
    runpy.run_module("worker_node", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
