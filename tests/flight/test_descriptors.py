from __future__ import annotations

import pyarrow.flight as flight
import pytest
from hypothesis import given
from hypothesis import strategies as st

from boilstream.catalog.names import topic_name
from boilstream.errors import InvalidArgument
from boilstream.flight.descriptors import ReadTicket, decode_ticket, encode_ticket, topic_of

names = st.text(min_size=1, max_size=20).filter(lambda text: text.isprintable() and text.strip("."))


@given(names, names, st.none() | st.text(max_size=20), st.none() | st.lists(st.text(max_size=10)).map(tuple))
def test_tickets_survive_their_encoding(
    schema: str, table: str, topic_id: str | None, files: tuple[str, ...] | None
) -> None:
    ticket = ReadTicket(topic_name(schema, table), topic_id, files)
    assert decode_ticket(encode_ticket(ticket).ticket) == ticket


@given(st.binary(max_size=200))
def test_any_bytes_are_a_ticket_or_an_argument_error(data: bytes) -> None:
    try:
        assert isinstance(decode_ticket(data), ReadTicket)
    except InvalidArgument as error:
        assert error.message


def test_an_oversized_ticket_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="at most"):
        decode_ticket(b"x" * (4 * 1024 * 1024 + 1))


def test_a_command_is_not_a_topic() -> None:
    with pytest.raises(InvalidArgument, match="descriptor path"):
        topic_of(flight.FlightDescriptor.for_command(b"x"))


def test_a_path_is() -> None:
    assert str(topic_of(flight.FlightDescriptor.for_path("s3", "user_events"))) == "s3.user_events"
