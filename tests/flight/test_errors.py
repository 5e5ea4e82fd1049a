from __future__ import annotations

import inspect
import json
import logging

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from boilstream import errors
from boilstream.flight.errors import MAX_MESSAGE_BYTES, flight_errors, to_flight_error

TREE = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, errors.BoilStreamError) and value is not errors.BoilStreamError
]


@pytest.mark.parametrize("kind", TREE)
def test_every_error_of_the_tree_keeps_code_and_retryability(kind: type[errors.BoilStreamError]) -> None:
    error = to_flight_error(kind("what, where, what to do"))
    assert isinstance(error, flight.FlightError)
    extra = json.loads(error.extra_info)
    assert (extra["code"], extra["retryable"]) == (kind.code, kind.retryable)
    assert len(error.extra_info) <= 512
    assert str(error).startswith(f"{kind.code}: what, where, what to do")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (errors.Unauthenticated, flight.FlightUnauthenticatedError),
        (errors.PermissionDenied, flight.FlightUnauthorizedError),
        (errors.Unavailable, flight.FlightUnavailableError),
        (errors.ResourceExhausted, flight.FlightUnavailableError),
        (errors.TimedOut, flight.FlightTimedOutError),
        (errors.Internal, flight.FlightInternalError),
        (errors.NotFound, flight.FlightServerError),
    ],
)
def test_the_fitting_flight_class_is_used(
    kind: type[errors.BoilStreamError], expected: type[flight.FlightError]
) -> None:
    assert type(to_flight_error(kind("x"))) is expected


@pytest.mark.parametrize(
    "defect", [KeyError("secret"), pa.ArrowInvalid("secret"), RuntimeError("secret"), OSError("secret")]
)
def test_a_defect_is_told_to_the_log_and_not_to_the_client(
    caplog: pytest.LogCaptureFixture, defect: Exception
) -> None:
    with (
        caplog.at_level(logging.ERROR),
        pytest.raises(flight.FlightInternalError) as caught,
        flight_errors("DoGet"),
    ):
        raise defect
    assert "secret" not in str(caught.value)
    assert "secret" in caplog.text
    error_id = json.loads(caught.value.extra_info)["error_id"]
    assert error_id in str(caught.value)
    assert error_id in caplog.text


def test_flight_errors_pass_unchanged() -> None:
    original = flight.FlightCancelledError("gone")
    with pytest.raises(flight.FlightCancelledError) as caught, flight_errors("DoGet"):
        raise original
    assert caught.value is original


def test_a_defect_goes_the_way_of_all_errors() -> None:
    told: list[errors.BoilStreamError] = []

    def translate(error: errors.BoilStreamError) -> flight.FlightError:
        told.append(error)
        return flight.FlightError("of the caller's making")

    for raised in (errors.NotFound("x"), KeyError("secret")):
        with (
            pytest.raises(flight.FlightError, match="of the caller's making") as caught,
            flight_errors("DoGet", translate),
        ):
            raise raised
        assert caught.value.__suppress_context__
    assert [type(error) for error in told] == [errors.NotFound, errors.Internal]
    assert isinstance(told[1].__cause__, KeyError)
    assert "secret" not in told[1].message


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("one\ntwo\r\nthree\u2028four", "one two three four"),
        ("half a pair \ud800", "half a pair ?"),
        ("täulu / 1 \U0001f600", "täulu / 1 \U0001f600"),
    ],
)
def test_a_message_is_one_line_that_any_client_can_decode(message: str, expected: str) -> None:
    """pyarrow would send its own traceback for a text that is no UTF-8."""
    assert str(to_flight_error(errors.NotFound(message))) == f"NOT_FOUND: {expected}"


def test_long_messages_are_cut_at_a_character() -> None:
    message = str(to_flight_error(errors.InvalidArgument("ä" * 5000)))
    assert len(message.encode()) <= MAX_MESSAGE_BYTES
    assert message.endswith("...")
