"""A stand-in for DuckDB's Airport extension: its calls, its caches, and the places where it would crash."""

from __future__ import annotations

from tests.support.airport.client import AirportClient, OpenScan, Written
from tests.support.airport.engine import Engine, Plan
from tests.support.airport.errors import AirportError, ClientWouldCrash, ProtocolBroken
from tests.support.airport.wire import ROWID, Table

__all__ = [
    "ROWID",
    "AirportClient",
    "AirportError",
    "ClientWouldCrash",
    "Engine",
    "OpenScan",
    "Plan",
    "ProtocolBroken",
    "Table",
    "Written",
]
