"""Stoker's exceptions.

    StokerError
    +-- InvalidRequest            what the caller sent cannot be accepted
    |   +-- InvalidInput          the input breaks the app's schema
    |   +-- PayloadTooLarge
    |   +-- IdempotencyConflict   the same key with another body
    |   +-- InvalidFile           a File that cannot be used
    +-- Unauthenticated           no key, or one that is not valid
    +-- Forbidden                 the key's scopes do not allow it
    +-- NotFound                  it does not exist, or belongs to another tenant
    |   +-- UnknownApp
    +-- Gone                      it was there, and was removed
    |   +-- PayloadRemoved        a job's input and result
    |   +-- OutputsRemoved        a job's outputs
    +-- Conflict                  the thing is in a state that does not allow it
    +-- RateLimited               the tenant asks too often
    +-- QueueFull                 as many jobs of the app wait as may
    |   +-- TenantQueueFull       as many jobs of the tenant wait as may
    +-- Unavailable               an engine cannot be reached
    |   +-- StorageUnavailable
    |       +-- StorageRefused    the object store will not do it, however often it is asked
    +-- ConfigurationError        a setting, a binary or an installation is wrong
    |   +-- AppDefinitionError    a user's app class cannot be served
    |   +-- EngineError           an embedded engine cannot be started
    +-- ExecutionError            a job's attempt failed
        +-- AppError              the user's code raised
        |   +-- OutOfMemory       of a GPU or of the machine
        |   +-- GpuFailed         a GPU cannot be used by the process any more
        |   +-- CollectiveFailed  ranks lost each other
        |   +-- ChildFailed       a job that the app called and waited for
        |   |   +-- ChildCancelled
        |   +-- CallRefused       the app may not call another, or not like that
        +-- WorkerCrashed         a rank or the app's process died
        +-- CrashedBeside         the app's process died while it served several jobs
        +-- NodeLost              the attempt's lease ran out
        +-- RunTimeout
        +-- StartTimeout
        +-- StallTimeout
        +-- JobCancelled
        +-- LeaseLost             another attempt holds the job now

Pure: no I/O. ``code`` is for programs and stands in docs/errors.md, the message says what happened, ``hint`` what to do
next.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar


class StokerError(Exception):
    """Base of all errors that Stoker raises on purpose."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong inside Stoker"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    hint: str = "Look at the log of the process that answered; the request id is in it."

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint


class InvalidRequest(StokerError):
    """What the caller sent cannot be accepted."""

    code, title, status = "invalid_request", "The request cannot be accepted", 400
    hint = "Compare the request with /openapi.json."


class InvalidInput(InvalidRequest):
    """The input breaks the app's schema. ``errors`` holds one ``{loc, msg, type}`` a place."""

    code, title, status = "invalid_input", "The input does not fit the app's schema", 422
    hint = "Each entry of errors names a place and what is wrong there; the schema is at /v1/apps/{owner}/{alias}."

    def __init__(self, message: str, *, errors: Sequence[Mapping[str, Any]], hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.errors = list(errors)


class PayloadTooLarge(InvalidRequest):
    """A body over the limit."""

    code, title, status = "payload_too_large", "The request is too large", 413
    hint = "Upload large inputs with POST /v1/files and send the file's id."


class IdempotencyConflict(InvalidRequest):
    """An Idempotency-Key that was used before with another body."""

    code, title, status = "idempotency_conflict", "This Idempotency-Key belongs to another request", 422
    hint = "Send the same body again, or choose a new key."


class InvalidFile(InvalidRequest):
    """A File in an input that cannot be resolved."""

    code, title, status = "invalid_file", "A file of the input cannot be used", 422
    hint = "A File is the id of an uploaded file, a data URI or an https URL."


class Unauthenticated(StokerError):
    """No key, or one that is not valid."""

    code, title, status = "unauthenticated", "A valid API key is needed", 401
    hint = "Send 'Authorization: Key <id>:<secret>'. Make a key with 'stoker keys create'."


class Forbidden(StokerError):
    """The key's scopes do not allow this."""

    code, title, status = "forbidden", "This key may not do that", 403
    hint = "Use a key with the scope that the message names."


class NotFound(StokerError):
    """It does not exist, or belongs to another tenant."""

    code, title, status = "not_found", "There is no such thing", 404
    hint = "Check the id. A key sees what belongs to its own tenant alone."


class UnknownApp(NotFound):
    """No node has ever published this app or endpoint."""

    code, title = "unknown_app", "There is no such app"
    hint = "GET /v1/apps lists the apps. An app appears when a node that serves it starts."


class Gone(StokerError):
    """It was there, and was removed."""

    code, title, status = "gone", "It was removed", 410
    hint = "It cannot be brought back."


class PayloadRemoved(Gone):
    """A job's input and result are not kept any more."""

    code, title = "payload_removed", "The job's input and result were removed"
    hint = "They are kept no longer than its caller, its app or an admin wished, and cannot be brought back."


class OutputsRemoved(Gone):
    """A job's outputs are not kept any more."""

    code, title = "outputs_removed", "The job's outputs were removed"
    hint = "They are kept no longer than the job's caller, its app or an admin wished. Submit the job again for others."


class Conflict(StokerError):
    """The thing is in a state that does not allow this."""

    code, title, status = "conflict", "It is in a state that does not allow this", 409
    hint = "Read its state again."


class RateLimited(StokerError):
    """The tenant asks more often than it may. ``retry_after_s``: how long until it may again."""

    code, title, status, retryable = "rate_limited", "Too many requests", 429, True
    hint = "Wait as long as the Retry-After header says. An admin sets max_requests_per_s of the tenant."

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueueFull(StokerError):
    """As many jobs of the app wait as its max_queue_length allows. Nothing was stored."""

    code, title, status, retryable = "queue_full", "The app's queue is full", 429, True
    hint = "Send it again later; the Retry-After header says when to try. An admin sets max_queue_length."


class TenantQueueFull(QueueFull):
    """As many of the tenant's jobs wait as its max_waiting allows. Nothing was stored."""

    code, title = "tenant_queue_full", "Too many of your jobs wait"
    hint = "Send it again when some have started; the Retry-After header says when to try. An admin sets max_waiting."


class Unavailable(StokerError):
    """An engine that Stoker needs cannot be reached."""

    code, title, status, retryable = "unavailable", "Stoker cannot answer just now", 503, True
    hint = "Try again in a moment. 'stoker doctor' says which part is missing."


class StorageUnavailable(Unavailable):
    """The object store cannot be reached."""

    code, title = "storage_unavailable", "The object store cannot be reached"


class StorageRefused(StorageUnavailable):
    """The object store answers, and will not do it: a wrong key, no such bucket, a request that it cannot take."""

    code, title, retryable = "storage_refused", "The object store refused", False
    hint = "The message is the store's own. 'stoker doctor' checks the bucket and the keys."


class ConfigurationError(StokerError):
    """A setting, a binary or an installation is wrong."""

    code, title = "configuration_error", "The configuration is wrong"
    hint = "'stoker doctor' checks the installation."


class AppDefinitionError(ConfigurationError):
    """A user's app class cannot be served as it is written."""

    code, title = "app_definition_error", "The app cannot be served as it is written"
    hint = "See docs/writing-apps.md."


class EngineError(ConfigurationError):
    """An embedded engine cannot be found or started."""

    code, title = "engine_error", "An engine cannot be started"


class ExecutionError(StokerError):
    """A job's attempt failed."""

    code, title = "execution_error", "The job failed"
    hint = "The job's events and attempts say more."
    crash: ClassVar[bool] = False


class AppError(ExecutionError):
    """The app's own code raised. ``type_name`` and ``traceback`` are those of its exception."""

    code, title, retryable = "app_error", "The app raised an error", True
    hint = "The traceback is the app's own."

    def __init__(self, message: str, *, type_name: str = "", traceback: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.type_name, self.traceback = type_name, traceback


class OutOfMemory(AppError):
    """An allocation failed, on a GPU or on the host."""

    code, title, crash = "out_of_memory", "The job needed more memory than there was", True
    hint = "Ask for less at once: a smaller batch, picture or model. The traceback names the allocation."


class GpuFailed(AppError):
    """A CUDA error after which the process cannot use its GPU; its ranks are replaced."""

    code, title, crash = "gpu_failed", "A GPU failed under the job", True
    hint = (
        "Often an index out of bounds: CUDA_LAUNCH_BLOCKING=1 shows where. If it follows one GPU, look at its health."
    )


class CollectiveFailed(AppError):
    """Ranks lost each other in a collective; they are replaced."""

    code, title, crash = "collective_failed", "The ranks lost each other", True
    hint = "The first rank that failed says why; NCCL_DEBUG=WARN says more."


class ChildFailed(AppError):
    """A job that the app called has failed: ``child_id`` of ``app``, with ``error_type`` and ``error_message``."""

    code, title = "child_failed", "A job that the app called has failed"
    hint = "Read the child that the message names, and its attempts."

    def __init__(
        self,
        message: str,
        *,
        type_name: str = "",
        traceback: str = "",
        hint: str | None = None,
        child_id: str = "",
        app: str = "",
        error_type: str = "",
        error_message: str = "",
    ) -> None:
        super().__init__(message, type_name=type_name, traceback=traceback, hint=hint)
        self.child_id, self.app, self.error_type, self.error_message = child_id, app, error_type, error_message


class ChildCancelled(ChildFailed):
    """A job that the app called was cancelled by somebody."""

    code, title, retryable = "child_cancelled", "A job that the app called was cancelled", False
    hint = "Submit the job again if it was not meant to be."


class CallRefused(AppError):
    """The app may not call another one here, or not with this request. Nothing was started."""

    code, title, retryable = "call_refused", "The app may not call another one like this", False
    hint = "See 'Calling another app' in docs/writing-apps.md."


class WorkerCrashed(ExecutionError):
    """A rank or the app's process died while it held the job."""

    code, title, retryable, crash = "worker_crashed", "A process of the app died", True, True
    hint = "Exit code -9 is most often the out-of-memory killer: lower the batch size."


class CrashedBeside(ExecutionError):
    """The app's process died while it served several jobs, and which of them did it is not known."""

    code, title, retryable, crash = "crashed_beside", "The app's process died while it served several jobs", True, True
    hint = "They are tried again one at a time, without a crash being counted."


class NodeLost(ExecutionError):
    """The node that ran the attempt stopped renewing its lease."""

    code, title, retryable, crash = "node_lost", "The node that ran the job was lost", True, True
    hint = "Look at the node's log and at v_nodes."


class RunTimeout(ExecutionError):
    """The attempt ran longer than run_timeout."""

    code, title = "run_timeout", "The job ran out of time"
    hint = "Raise run_timeout, or ask for less."


class StartTimeout(ExecutionError):
    """The job waited longer than start_timeout."""

    code, title = "start_timeout", "The job was not started in time"
    hint = "Raise start_timeout, or add a node that serves the app."


class StallTimeout(ExecutionError):
    """The attempt made no progress for stall_timeout."""

    code, title, retryable, crash = "stall_timeout", "The job made no progress", True, True
    hint = "A rank most likely waits in a collective that another one left."


class JobCancelled(ExecutionError):
    """The job was cancelled while it ran."""

    code, title = "cancelled", "The job was cancelled"
    hint = "Submit it again if it was not meant to be."


class LeaseLost(ExecutionError):
    """This attempt does not hold the job any more; what it writes is discarded."""

    code, title = "lease_lost", "Another attempt holds the job"
