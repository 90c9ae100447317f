"""What calls themselves can meet: who calls, how long, foreign peers, our own bugs. See `blockyard.base.errors`."""

from dataclasses import dataclass

from blockyard.base.errors.base import BlockError, Code, RequestError


@dataclass(eq=False)
class Unauthenticated(RequestError):
    """The caller did not say who it is, or could not prove it."""

    method: str
    why: str
    reason = "UNAUTHENTICATED"
    code = Code.UNAUTHENTICATED
    template = "{method}: who calls? {why}"
    advice = "Send the credentials that the service is configured to accept."


@dataclass(eq=False)
class CallerDenied(RequestError):
    """The caller is known and may not do this."""

    method: str
    caller: str
    reason = "CALLER_DENIED"
    code = Code.PERMISSION_DENIED
    template = "{caller} may not call {method}"
    advice = "Ask the operator for the right, or call as someone who has it."


@dataclass(eq=False)
class ServiceDisabled(RequestError):
    """A part of the API that the operator has not switched on."""

    service: str
    option: str
    reason = "SERVICE_DISABLED"
    code = Code.PERMISSION_DENIED
    template = "{service} is switched off here"
    advice = "If it is meant to be used here, start the service with the option `{option}`; see docs/options.md."


@dataclass(eq=False)
class CallCancelled(RequestError):
    """A call ended before its work did: the client, or the work itself, gave it up."""

    method: str
    why: str
    reason = "CALL_CANCELLED"
    code = Code.CANCELLED
    template = "{method} was cancelled: {why}"
    advice = "Call again if the result is still wanted; a mutation with the same request_id is harmless."


@dataclass(eq=False)
class DeadlinePassed(RequestError):
    """No answer came within the time that the caller gave."""

    method: str
    detail: str
    reason = "DEADLINE_PASSED"
    code = Code.DEADLINE_EXCEEDED
    retryable = True
    template = "{method} was not answered in time: {detail}"
    advice = "Give it more time; a mutation may have happened, so repeat it with the same request_id."


@dataclass(eq=False)
class RemoteError(BlockError):
    """An error that is not of this catalogue came back from a peer: another version, a proxy, or gRPC itself."""

    method: str
    status: str
    remote_reason: str
    detail: str
    reason = "REMOTE_ERROR"
    code = Code.INTERNAL
    template = "{method} failed with {status} {remote_reason}: {detail}"
    advice = "Compare the versions (`blockyard --version`, `blockyard server info`), then look at its log."

    def canonical(self) -> Code:
        return Code(self.status) if self.status in Code.__members__ else self.code


@dataclass(eq=False)
class InternalError(BlockError):
    """A bug of ours. The text goes to the log; the client gets the trace id to find it."""

    detail: str
    reason = "INTERNAL"
    code = Code.INTERNAL
    template = "internal error: {detail}"
    advice = "Report it with the trace id and the service's log."
