"""Descriptors and tickets: how clients name topics and parts of reads."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pyarrow.flight as flight

from boilstream.catalog.names import TopicName, from_path
from boilstream.errors import InvalidArgument

MAX_TICKET_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadTicket:
    """What one DoGet reads."""

    name: TopicName
    topic_id: str | None = None
    """Id of the topic that was planned for; None: whatever has the name now."""
    files: tuple[str, ...] | None = None
    """Names of the files of this part, relative to the topic's data folder; None: all committed now."""


def topic_of(descriptor: flight.FlightDescriptor) -> TopicName:
    """The topic that a descriptor names by its path; raises InvalidArgument."""
    if descriptor.descriptor_type != flight.DescriptorType.PATH:
        raise InvalidArgument("name the topic by a descriptor path, such as ['s3', 'user_events']")
    return from_path(descriptor.path)


def encode_ticket(ticket: ReadTicket) -> flight.Ticket:
    """The ticket in its wire form, JSON."""
    body: dict[str, object] = {"topic": [ticket.name.schema, ticket.name.table]}
    if ticket.topic_id is not None:
        body["id"] = ticket.topic_id
    if ticket.files is not None:
        body["files"] = list(ticket.files)
    return flight.Ticket(json.dumps(body, separators=(",", ":")).encode())


def decode_ticket(data: bytes) -> ReadTicket:
    """The ticket in `data`: one of `encode_ticket`, or just a topic as text, `s3.user_events`.

    Raises InvalidArgument. What a ticket names is checked against the caller's permissions and the
    committed files when it is used; it proves nothing by itself.
    """
    if len(data) > MAX_TICKET_BYTES:
        raise InvalidArgument(f"the ticket has {len(data)} bytes; at most {MAX_TICKET_BYTES} are read")
    if not data.lstrip().startswith(b"{"):
        return ReadTicket(from_path([data]))
    try:
        body = json.loads(data)
        topic, topic_id, files = body["topic"], body.get("id"), body.get("files")
    except (ValueError, KeyError, RecursionError):
        raise _malformed() from None
    if isinstance(topic, str):
        topic = [topic]
    if not _texts(topic) or not (topic_id is None or isinstance(topic_id, str)):
        raise _malformed()
    if files is not None and not _texts(files):
        raise _malformed()
    return ReadTicket(from_path(topic), topic_id, None if files is None else tuple(files))


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _malformed() -> InvalidArgument:
    return InvalidArgument(
        'a ticket is one from GetFlightInfo, the name of a topic, or JSON such as {"topic": ["s3", "user_events"]}'
    )
