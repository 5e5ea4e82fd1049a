"""The error tree of BoilStream.

Every failure that a caller can meet is one of these classes; the transport adapters translate
them (`boilstream.flight.errors`) and know nothing else.

    BoilStreamError
    |-- Unauthenticated       no token, or one that is not valid
    |-- PermissionDenied      known caller, missing permission
    |-- NotFound              no such topic, ticket or object
    |-- AlreadyExists         the name is taken
    |-- InvalidArgument       the request or its data is wrong; repeating it cannot help
    |   `-- ConstraintViolated  a row breaks NOT NULL or a CHECK of its topic
    |-- ResourceExhausted     a limit of this server (retryable)
    |-- Unavailable           store, key server or this server is not ready (retryable)
    |-- TimedOut              the outcome is not known in time (retryable)
    |-- Unimplemented         no such call
    |-- Internal              a defect; the log has the details under the same error id
    `-- ConfigurationError    the settings are wrong; the process does not start
"""

from __future__ import annotations

from typing import ClassVar


class BoilStreamError(Exception):
    """Base of all errors with a message that is safe and useful to show to a caller.

    The message says what is wrong, where, and what to do. It never holds token text, a
    traceback or a secret.
    """

    code: ClassVar[str] = "INTERNAL"
    """Stable name of the kind of error, part of the wire contract."""

    retryable: ClassVar[bool] = False
    """Whether the same request may succeed later without a change."""

    def __init__(self, message: str, **details: str | int) -> None:
        """`details` are short facts for programs; they travel beside the code."""
        super().__init__(message)
        self.message = message
        self.details = details


class Unauthenticated(BoilStreamError):
    """The call carries no bearer token, or one that is not valid."""

    code = "UNAUTHENTICATED"


class PermissionDenied(BoilStreamError):
    """The caller is known and lacks a permission; the message names the missing rule."""

    code = "PERMISSION_DENIED"


class NotFound(BoilStreamError):
    """What the request names does not exist, or the caller may not know that it does."""

    code = "NOT_FOUND"


class AlreadyExists(BoilStreamError):
    """The name is already taken."""

    code = "ALREADY_EXISTS"


class InvalidArgument(BoilStreamError):
    """The request or its data is wrong; the message names column and row where it can."""

    code = "INVALID_ARGUMENT"


class ConstraintViolated(InvalidArgument):
    """A row breaks NOT NULL or a CHECK of its topic; the message names the constraint and the row."""


class ResourceExhausted(BoilStreamError):
    """A limit of this server is reached; try again later."""

    code = "RESOURCE_EXHAUSTED"
    retryable = True


class Unavailable(BoilStreamError):
    """The object store, a key server or this server is not ready; try again later."""

    code = "UNAVAILABLE"
    retryable = True


class TimedOut(BoilStreamError):
    """The outcome was not known in time; a write may or may not have become durable."""

    code = "TIMED_OUT"
    retryable = True


class Unimplemented(BoilStreamError):
    """The server has no such call."""

    code = "UNIMPLEMENTED"


class Internal(BoilStreamError):
    """A defect of the server; the details are in its log only."""

    code = "INTERNAL"


class ConfigurationError(BoilStreamError):
    """The settings are wrong or do not fit the world; the process does not start."""

    code = "CONFIGURATION"
