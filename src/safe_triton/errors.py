"""The error tree. Each class says what its *caller* can do; each instance carries a stable reason slug.

::

    SafeTritonError                      reason, code
    ├── RequestError          INVALID_ARG  the client changes its request; text reaches the client
    │   ├── LimitExceededError             limit.*      above a declared limit
    │   ├── SignatureError                 input.*      names, dtypes and shapes against config.pbtxt
    │   ├── ContentError                   content.*    payload: UTF-8, JSON, finite, value range
    │   ├── ParameterError                 parameter.*  request parameters
    │   ├── SequenceError                  sequence.*   a request that belongs to no open sequence
    │   │   └── SequencesFullError (UNAVAILABLE)  sequence.full  as many are open as may be
    │   └── RefusedError (server's)        client.refused  a server refused a request of safe_triton.client
    ├── DeadlineExceededError UNAVAILABLE  the client retries later or asks for less
    ├── ModelError            (chosen)     the author's answer to a client, text and code kept
    ├── ModelFailedError      INTERNAL     a client sees only the id; details are in the server's log
    │   ├── OutputError                    output.*     what the author returned breaks config.pbtxt or a limit
    │   ├── ExpressionFailedError          expression.* a formula that cannot be evaluated with these values
    │   └── BlsError                       bls.*        a call to another model; the author may catch it
    │       ├── BlsUsageError              bls.usage    the model's own code: target, tensors, moment of the call
    │       ├── BlsLimitError              bls.limit    calls, bytes, depth, responses or threads of one request
    │       ├── BlsCycleError              bls.cycle    the call would lead back to a model that waits for it
    │       ├── BlsRefusedError            bls.refused  the target refused what it was sent
    │       ├── BlsOutputError             bls.output   the target's answer breaks its declared signature
    │       ├── BlsDeadlineError (UNAVAILABLE)     bls.deadline     the target did not answer in time
    │       └── BlsUnavailableError (UNAVAILABLE)  bls.unavailable  the target is not there
    ├── LoadError             INTERNAL     the author or operator changes a declaration; one line, no paths
    │   ├── PolicyError                    policy.*     a declaration that is wrong in itself or in conflict
    │   ├── ConfigError                    config.*     Triton's model configuration
    │   ├── ExpressionError                expression.* a formula that is no formula, or that must not be
    │   ├── ConditionError                 condition.*  a declared load condition does not hold
    │   ├── ConfinementError               confinement.* what was required cannot be enforced here
    │   ├── DeployError                    deploy.*     what the policy says cannot hold in a deployment
    │   └── EnvironmentMissingError        environment.* a package or release that a declaration needs
    ├── PathError             INVALID_ARG  path.*       a name that would leave its root, or is no plain file
    ├── ServerError           UNAVAILABLE  the operator installs or starts something; never sent to a client
    │   ├── ServerNotFoundError            server.not_found
    │   ├── IncompatibleEnvironmentError   server.incompatible
    │   ├── ServerStartError               server.start
    │   ├── ModelLoadError                 server.load
    │   └── LockError                      lock.*       a repository that is not what its lock or signature says
    └── ClientError           UNAVAILABLE  client.*     a call of safe_triton.client that brought no answer
        ├── ClientUsageError (INVALID_ARG)   client.usage        arguments, environment or file of the client
        ├── ClientAccessError                client.access       a credential or certificate is not accepted
        ├── ClientRateError                  client.rate         more requests than this identity may send
        ├── ServerUnavailableError           client.unavailable  the server or model is not there now
        ├── ClientTimeoutError               client.timeout      no answer in time; it may still be worked on
        ├── ConnectionLostError              client.connection_lost  it broke after the request had left
        ├── ServerFailedError (INTERNAL)     client.failed       the model or server failed with this request
        ├── AnswerError (INTERNAL)           client.answer       the answer is not what the model declares
        └── BatchError                       client.batch        some of many requests failed; the rest is kept

    DeadlineExceeded (BaseException)     raised inside the author's code by the watchdog; see ``runtime``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TRITON_CODES = (
    "UNKNOWN",
    "INTERNAL",
    "NOT_FOUND",
    "INVALID_ARG",
    "UNAVAILABLE",
    "UNSUPPORTED",
    "ALREADY_EXISTS",
    "CANCELLED",
)
"""Error codes of ``pb_utils.TritonError``.

HTTP status: INTERNAL 500, NOT_FOUND 404, UNAVAILABLE 503, UNSUPPORTED 501, others 400.
"""


class SafeTritonError(Exception):
    """Root of everything that this package raises on purpose.

    Args:
        message: one line that is safe for the reader this class names.
        reason: stable slug such as ``limit.batch_size``; the class's own default when left out.
    """

    code: str = "INTERNAL"
    default_reason: ClassVar[str] = "error"

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason


class RequestError(SafeTritonError):
    """A request that the client has to change; its text reaches the client and names reason, values and place."""

    code = "INVALID_ARG"
    default_reason = "request.invalid"


class LimitExceededError(RequestError):
    """A request above a declared limit.

    Args:
        reason: ``limit.<name>``.
        actual: what came.
        allowed: the bound.
        place: where in the request, such as ``inputs['X'].shape[1]``.
    """

    default_reason = "limit.exceeded"

    def __init__(self, reason: str, actual: float, allowed: float, place: str) -> None:
        super().__init__(f"{reason}: {actual} > {allowed} at {place}", reason=reason)


class SignatureError(RequestError):
    """Names, dtypes or shapes that break the model's configuration."""

    default_reason = "input.signature"


class ContentError(RequestError):
    """A payload that breaks a declared rule: UTF-8, JSON, finite values, value range."""

    default_reason = "content.invalid"


class ParameterError(RequestError):
    """A request parameter that is unknown, missing or outside its declaration."""

    default_reason = "parameter.invalid"


class SequenceError(RequestError):
    """A request that belongs to no open sequence of this model; the client starts one."""

    default_reason = "sequence.unknown"


class SequencesFullError(SequenceError):
    """A new sequence, while as many are open as the model keeps; the client may retry later."""

    code = "UNAVAILABLE"
    default_reason = "sequence.full"


class RefusedError(RequestError):
    """The server refused a request of ``safe_triton.client``: its text, and its reason where it gives one.

    Args:
        reason: the server's slug, such as ``limit.sequence_length``; ``client.refused`` where it gave none.
        code: the Triton code of the answer.
        status: as the protocol has it, such as ``INVALID_ARGUMENT`` or ``400``.
    """

    default_reason = "client.refused"

    def __init__(self, message: str, *, reason: str | None = None, code: str = "INVALID_ARG", status: str = "") -> None:
        super().__init__(message, reason=reason)
        self.code = code
        self.status = status


class DeadlineExceededError(SafeTritonError):
    """The author's code did not come back within its deadline; the client may retry later."""

    code = "UNAVAILABLE"
    default_reason = "deadline.exceeded"


class ModelError(SafeTritonError):
    """An author's answer to a client: text and code reach the client.

    Absolute paths are removed from the text and its length is capped before it leaves.

    Args:
        message: what the client should read.
        code: one of :data:`TRITON_CODES`.

    Raises:
        ValueError: ``code`` is not one of Triton's.
    """

    default_reason = "model.error"

    def __init__(self, message: str, *, code: str = "INVALID_ARG") -> None:
        if code not in TRITON_CODES:
            raise ValueError(f"code {code!r} is not one of {', '.join(TRITON_CODES)}")
        super().__init__(message)
        self.code = code


class ModelFailedError(SafeTritonError):
    """The author's code failed; a client sees ``model failed (id …)`` and the log has the rest under that id."""

    default_reason = "model.failed"


class OutputError(ModelFailedError):
    """What the author's code returned breaks config.pbtxt or a declared limit; the details stay in the log."""

    default_reason = "output.invalid"


class ExpressionFailedError(ModelFailedError):
    """A formula that cannot be evaluated with these values, or not within its bounds.

    Attributes:
        place: line and column of the part that failed; empty where the values themselves are wrong.
    """

    default_reason = "expression.failed"
    place = ""


class BlsError(ModelFailedError):
    """A call to another model failed. No word of the called model's own text is in it; that is in the server's log.

    Attributes:
        public: what a client is told when the model's author does not catch it; empty for ``model failed (id …)``.
    """

    default_reason = "bls.failed"

    @property
    def public(self) -> str:
        """What a client is told; nothing about which models there are."""
        return ""


class BlsUsageError(BlsError):
    """The model's own code called what it did not declare, with other tensors, or while no request was answered."""

    default_reason = "bls.usage"


class BlsLimitError(BlsError):
    """One request's calls came to a bound of :class:`BlsPolicy`."""

    default_reason = "bls.limit"


class BlsCycleError(BlsError):
    """The call would lead back to a model that waits for its answer; the message names the whole path."""

    default_reason = "bls.cycle"

    @property
    def public(self) -> str:
        """The path: whoever reads it has to change one of these models."""
        return self.message


class BlsRefusedError(BlsError):
    """The called model refused what it was sent."""

    default_reason = "bls.refused"


class BlsOutputError(BlsError):
    """The called model answered with something else than its declared signature."""

    default_reason = "bls.output"


class BlsDeadlineError(BlsError):
    """The called model did not answer in time; the client may retry later."""

    code = "UNAVAILABLE"
    default_reason = "bls.deadline"

    @property
    def public(self) -> str:
        """One sentence without names."""
        return "bls.deadline: a model that this one calls did not answer in time"


class BlsUnavailableError(BlsError):
    """The called model or version is not served now; the client may retry later."""

    code = "UNAVAILABLE"
    default_reason = "bls.unavailable"

    @property
    def public(self) -> str:
        """One sentence without names."""
        return "bls.unavailable: a model that this one calls is not available"


class LoadError(SafeTritonError):
    """A model that refuses to load: one line without host paths, since the load API shows it to clients."""

    default_reason = "load.failed"


class PolicyError(LoadError):
    """A declaration that is wrong in itself, or in conflict with the model's configuration."""

    default_reason = "policy.invalid"


class ConfigError(LoadError):
    """A model configuration that this package cannot serve."""

    default_reason = "config.invalid"


class ExpressionError(LoadError):
    """A formula that is no formula, or uses what formulas must not; the message has line and column."""

    default_reason = "expression.invalid"


class ConditionError(LoadError):
    """A declared load condition (model root, environment, device) that does not hold."""

    default_reason = "condition.unmet"


class ConfinementError(LoadError):
    """A confinement that is required and cannot be enforced here."""

    default_reason = "confinement.unavailable"


class DeployError(LoadError):
    """What is asked to be rendered cannot hold in a deployment, or would be written where something else lies."""

    default_reason = "deploy.invalid"


class EnvironmentMissingError(LoadError):
    """A package or Triton release that a declaration needs and this environment lacks."""

    default_reason = "environment.missing"


class PathError(SafeTritonError):
    """A file name that would leave its root, or does not name a plain file; the text never holds a host path."""

    code = "INVALID_ARG"
    default_reason = "path.refused"


class ServerError(SafeTritonError):
    """A server that cannot be found, started or told something; read by operators, never sent to a client."""

    code = "UNAVAILABLE"
    default_reason = "server.error"


class ServerNotFoundError(ServerError):
    """No tritonserver here; the message holds the install command."""

    default_reason = "server.not_found"


class IncompatibleEnvironmentError(ServerError):
    """A tritonserver that cannot work with this Python environment; the message holds the fix."""

    default_reason = "server.incompatible"


class ServerStartError(ServerError):
    """tritonserver did not become ready; the message holds the reason from its log."""

    default_reason = "server.start"


class ModelLoadError(ServerError):
    """The load API refused a model; the message holds the server's text."""

    default_reason = "server.load"


class LockError(ServerError):
    """A repository, lock file or signature that cannot be read, or is not what was locked and signed."""

    default_reason = "lock.invalid"


class ClientError(SafeTritonError):
    """A call of ``safe_triton.client`` that brought no answer; the message never holds a credential.

    Args:
        reason: the server's slug where it gave one, else ``client.*``.
        status: as the protocol has it, such as ``UNAVAILABLE`` or ``503``; empty where nothing was answered.
        retry_after_s: seconds that the server asks to wait.
    """

    code = "UNAVAILABLE"
    default_reason = "client.error"

    def __init__(
        self, message: str, *, reason: str | None = None, status: str = "", retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, reason=reason)
        self.status = status
        self.retry_after_s = retry_after_s


class ClientUsageError(ClientError):
    """The client's own arguments, environment variables or file are wrong; nothing was sent."""

    code = "INVALID_ARG"
    default_reason = "client.usage"


class ClientAccessError(ClientError):
    """A credential or certificate, the client's or the server's, was not accepted."""

    default_reason = "client.access"


class ClientRateError(ClientError):
    """More requests than this identity or model may have; ``retry_after_s`` says when to come back."""

    default_reason = "client.rate"


class ServerUnavailableError(ClientError):
    """The server, or the model in it, is not there now; the request was not worked on."""

    default_reason = "client.unavailable"


class ClientTimeoutError(ClientError):
    """No answer within the deadline; the server may still work on the request."""

    default_reason = "client.timeout"


class ConnectionLostError(ClientError):
    """The connection broke after the request had left; the server may have worked on it."""

    default_reason = "client.connection_lost"


class ServerFailedError(ClientError):
    """The model or the server failed with this request; an id in the text leads to the server's log."""

    code = "INTERNAL"
    default_reason = "client.failed"


class AnswerError(ClientError):
    """The answer breaks the protocol, the model's configuration or a limit of the client."""

    code = "INTERNAL"
    default_reason = "client.answer"


class BatchError(ClientError):
    """Some of many requests failed, the others are done.

    Args:
        answers: every answer at its index, ``None`` where there is none.
        errors: the failures by index; for rows, by the first row of the request.

    Attributes:
        index: the first failure's.
    """

    default_reason = "client.batch"

    def __init__(self, message: str, *, answers: Sequence[Any], errors: Mapping[int, SafeTritonError]) -> None:
        super().__init__(message)
        self.answers = tuple(answers)
        self.errors = dict(errors)
        self.index = min(errors)


class DeadlineExceeded(BaseException):
    """Raised inside the author's code when its soft deadline has passed.

    Named like ``asyncio.CancelledError``: an interruption, not a failure. A ``BaseException``, so that
    ``except Exception`` does not swallow it; ``finally`` blocks run. It is answered as
    :class:`DeadlineExceededError`.
    """
