"""``stoker demo``: a whole Stoker on this machine, one job through its public API, and how to go on from there.

It is a client like any other: it knows the API's address and a key. ``stoker.local`` runs the stack,
``stoker.cli.local`` calls this.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from rich.console import Console

from stoker.cli import fault
from stoker.cli.drawing import Drawing
from stoker.cli.show import line
from stoker.client import Client, Job
from stoker.errors import EngineError
from stoker.local import place, stack
from stoker.local.binaries import POSTGRES, find
from stoker.states import JobState

APP = "stoker/text-to-image"
INPUT = {"prompt": "a red circle above a blue square", "num_images": 2, "seed": 7}
OUT = Path("out")
START_TIMEOUT_S = 300  # ranks that never become warm should be said, not waited for


def run(*, leave: bool) -> int:
    """Start everything, show one job, then stay up until Ctrl-C, or ``leave``; the exit code."""
    console = Console(file=sys.stderr, highlight=False)
    options = stack.Options(data_dir=place.default_data_dir(os.environ))
    ended: list[JobState] = []

    def on_ready(running: stack.Running) -> None:
        waiting.stop()
        ended.append(_show_job(running.stack, console))
        if leave:
            console.print("It ends now: start again with '.venv/bin/stoker up --detach'; the data stay.")
            running.leave()
        else:
            console.print("[bold]Everything stays up until Ctrl-C.[/bold]")

    waiting = console.status("Starting PostgreSQL, Valkey, SeaweedFS, the API, the control loop and a node")
    waiting.start()
    try:
        stack.run(options, on_ready)
    finally:
        waiting.stop()
    if not ended:
        return fault.INTERRUPTED
    return fault.OK if ended[0] is JobState.SUCCEEDED else fault.FAILED


def _show_job(running: stack.Stack, console: Console) -> JobState:
    """Send the job, draw it while it runs, save what it made and say where everything is."""
    with Client(running.api_url, running.api_key) as client:
        console.print(f"POST {running.api_url}/v1/jobs  {APP}  {INPUT}", markup=False, soft_wrap=True)
        job = client.submit(APP, INPUT, start_timeout_s=START_TIMEOUT_S)
        with Drawing(console) as drawing:
            for event in client.events(job.id):
                drawing.show(event)
        job = client.get(job.id)
        saved = [client.download(output, OUT / str(job.id)) for output in job.outputs]
    for path in saved:
        line(f"picture   {path}")
    if job.error:
        fault.say(f"the job {job.state}: {job.error.message}", job.error.hint)
    _show_way_on(running, job)
    return job.state


def _show_way_on(running: stack.Stack, job: Job) -> None:
    line(f"job       {job.id}  {job.state}")
    line(f"api       {running.api_url}")
    line(f"key       {running.api_key}")
    request = f"curl -H 'Authorization: Key {running.api_key}' {running.api_url}/v1/jobs/{job.id}"
    line(f"http      {request}")
    statement = f"select id, app, state, attempt, waited_s, ran_s from v_jobs where id = '{job.id}'"  # noqa: S608 (shown, not run)
    line(f'ask       .venv/bin/stoker sql "{statement}"')
    line(f"sql       {_psql()} '{running.database_url}' -c \"{statement}\"")


def _psql() -> str:
    """A psql that can be typed in: the one on the path, else the one beside our PostgreSQL."""
    if shutil.which("psql"):
        return "psql"
    try:
        return str(find(POSTGRES, os.environ).path.with_name("psql"))
    except EngineError:  # PostgreSQL is the user's own, and so is psql
        return "psql"
