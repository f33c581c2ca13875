"""``stoker submit|status|events|result|cancel|jobs``: what a caller does with jobs, over the HTTP API."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from stoker.cli import fault, show
from stoker.cli.drawing import Drawing
from stoker.cli.inputs import parse_inputs
from stoker.cli.options import ApiKey, ApiUrl, AsJson, JobId, SaveTo, connect
from stoker.client import Client, Job
from stoker.states import JobState


def submit(
    app: Annotated[str, typer.Argument(help="owner/alias of the app, as 'stoker apps' lists it.")],
    *,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", help="name=text, name:=json or name=@file; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    endpoint: Annotated[str, typer.Option(help="The app's endpoint.")] = "/",
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 first, 9 last. Default: 5.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find the job by; repeatable.")] = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key submits one job, however often it is sent.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job and write its result.")] = False,
    out: SaveTo = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Submit a job and write its id; with --wait (or --out) its result."""
    with connect(api_url, api_key) as client:
        job = client.submit(
            app,
            parse_inputs(inputs or (), lambda path: client.upload(path).id),
            endpoint=endpoint,
            priority=priority,
            tags=tag or (),
            idempotency_key=idempotency_key,
        )
        if not job.served and not job.state.is_final:
            sys.stderr.write(f"note: no live node serves {app}; the job waits\n")
        if wait or out:
            _finish(client, _follow(client, job), out, as_json=as_json)
        elif as_json:
            show.as_json(_plain(job))
        else:
            show.line(str(job.id))


def status(job_id: JobId, *, api_url: ApiUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Show a job as it is now."""
    with connect(api_url, api_key) as client:
        job = client.get(job_id)
    if as_json:
        show.as_json(_plain(job))
        return
    rows: list[tuple[str, object]] = [
        ("id", job.id),
        ("app", f"{job.app} {job.endpoint}"),
        ("state", job.state if job.served or job.state.is_final else f"{job.state}: no live node serves {job.app}"),
        ("attempt", job.attempt),
        ("created", job.created_at),
        ("started", job.started_at),
        ("finished", job.finished_at),
    ]
    if job.progress:
        rows.append(("progress", f"{job.progress.get('step')}/{job.progress.get('total')}"))
    if job.error:
        rows += [("error", f"{job.error.code}: {job.error.message}"), ("hint", job.error.hint)]
    rows += [("output", f"{output.name} {output.url}") for output in job.outputs]
    for name, value in rows:
        if value is not None:
            show.line(f"{name:<9} {value}")


def events(
    job_ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[JOB_ID]...", help="Of one job until its last; of several or all: on and on."),
    ] = None,
    *,
    after: Annotated[
        str | None,
        typer.Option(help="Only what came after the event with this id; of many jobs, 0 is all that is kept."),
    ] = None,
    app: Annotated[str | None, typer.Option(help="Of many jobs: only this app's.")] = None,
    kind: Annotated[list[str] | None, typer.Option(help="Of many jobs: only state, log or output; repeatable.")] = None,
    state: Annotated[
        list[JobState] | None, typer.Option(help="Of many jobs: only changes to this state; repeatable.")
    ] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's events as they come, until its last (exit code 1: it did not succeed), or those of many jobs."""
    with connect(api_url, api_key) as client:
        if job_ids is None or len(job_ids) != 1 or app or kind or state:
            chosen = client.all_events(
                after=after,
                job_ids=job_ids or (),
                app=app,
                kinds=kind or (),
                states=[str(each) for each in state or ()],
            )
            for seen in chosen:
                text = f"{seen.job_id or '':<36} {seen.kind:<7} {_short(seen.data)}"
                show.line(seen.model_dump_json() if as_json else text)
            return
        [job_id] = job_ids
        for event in client.events(job_id, after=after):
            if as_json:
                show.line(event.model_dump_json())
            else:
                show.line(f"{event.id:<12} {event.kind:<9} {_short(event.data)}")
            if event.final_state not in (None, JobState.SUCCEEDED):
                raise typer.Exit(fault.FAILED)


def result(
    job_id: JobId,
    *,
    wait: Annotated[bool, typer.Option(help="Follow the job until it ends, or refuse if it has not.")] = True,
    out: SaveTo = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's result; waits for it. Exit code 1: the job did not succeed."""
    with connect(api_url, api_key) as client:
        job = client.get(job_id)
        if not job.state.is_final:
            job = _follow(client, job) if wait else client.result(job_id, wait=False)
        _finish(client, job, out, as_json=as_json)


def cancel(job_id: JobId, *, api_url: ApiUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """Cancel a job. A running one stops soon after."""
    with connect(api_url, api_key) as client:
        job = client.cancel(job_id)
    if as_json:
        show.as_json(_plain(job))
    else:
        show.line(f"{job.id} is {job.state}" if job.state.is_final else f"{job.id} is asked to stop")


def list_jobs(
    *,
    app: Annotated[str | None, typer.Option(help="Only this app's.")] = None,
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only jobs with this tag.")] = None,
    parent: Annotated[str | None, typer.Option(help="Only jobs that this one has started.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="How many.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="The next_cursor of the page before.")] = None,
    api_url: ApiUrl = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first."""
    with connect(api_url, api_key) as client:
        page = client.list(app=app, state=state and state.value, tag=tag, parent=parent, cursor=cursor, limit=limit)
    if as_json:
        show.as_json(page.model_dump(mode="json"))
        return
    show.as_table(
        ("id", "app", "endpoint", "state", "attempt", "created"),
        [
            (
                job.id,
                job.app,
                job.endpoint,
                job.state,
                job.attempt,
                job.created_at and f"{job.created_at:%m-%d %H:%M:%S}",
            )
            for job in page.jobs
        ],
        empty="There is no such job.",
    )


def apps(*, api_url: ApiUrl = None, api_key: ApiKey = None, as_json: AsJson = False) -> None:
    """List the apps that nodes publish."""
    with connect(api_url, api_key) as client:
        found = client.apps()
    if as_json:
        show.as_json([app.model_dump(mode="json") for app in found])
        return
    show.as_table(
        ("app", "title", "gpus", "live nodes", "endpoints"),
        [
            (app.app, app.title, app.num_gpus, app.live_nodes, " ".join(str(way.get("path")) for way in app.endpoints))
            for app in found
        ],
        empty="No node has published an app yet. 'stoker node --app package.module:Class' starts one.",
    )


def _follow(client: Client, job: Job) -> Job:
    """Draw the job's events until its last; the job as it ended."""
    with Drawing() as drawing:
        for event in client.events(job.id):
            drawing.show(event)
    return client.result(job.id, wait=False)


def _finish(client: Client, job: Job, out: Path | None, *, as_json: bool) -> None:
    """Write the result of a job that has ended, save its outputs, and fail if it did."""
    # A folder for each job: two jobs' pictures have the same names.
    saved = [client.download(output, out / str(job.id)) for output in job.outputs] if out else []
    if as_json:
        show.as_json(_plain(job) | ({"saved": [str(path) for path in saved]} if out else {}))
    elif job.state is JobState.SUCCEEDED:
        show.as_json(job.result)
        for path in saved:
            show.line(str(path))
    if job.state is not JobState.SUCCEEDED:
        error = job.error
        fault.say(
            f"job {job.id} {job.state}" + (f": {error.code}: {error.message}" if error else ""),
            (error and error.hint) or f"'stoker events {job.id}' shows what happened.",
        )
        raise typer.Exit(fault.FAILED)


def _plain(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json")


def _short(data: dict[str, Any]) -> str:
    text = " ".join(f"{name}={value}" for name, value in data.items() if value is not None)
    return text if len(text) <= 200 else f"{text[:199]}…"
