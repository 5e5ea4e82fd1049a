"""The cost of a token that the server has verified before, against a server that asks for none."""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from pyarrow import flight

from benchmarks.report import ratio
from tests.support.issuer import IssuerProcess
from tests.support.server import Client, ServerProcess

ROUNDS = 60
CALLS = 50


def main() -> None:
    """Print the ratio of the medians of alternating rounds of `health` calls, one client, loopback, no TLS."""
    print(f"cached token: {ROUNDS} rounds of {CALLS} health actions on each server, in turns")
    with (
        tempfile.TemporaryDirectory(prefix="boilstream-bench-") as folder,
        IssuerProcess.start(Path(folder) / "issuer") as issuer,
    ):
        plain = {"LOG_LEVEL": "info"}
        guarded = {name: value for name, value in issuer.environment().items() if not name.startswith("TLS_")}
        for name in ("open", "guarded"):
            Path(folder, name).mkdir()
        with (
            ServerProcess(plain | {"DATA_DIR": f"{folder}/open/data"}) as open_server,
            ServerProcess(plain | guarded | {"DATA_DIR": f"{folder}/guarded/data"}) as guarded_server,
        ):
            clients = {
                "no auth": Client(open_server.location, None),
                "cached token": Client(guarded_server.location, issuer.token(groups="Readers")),
            }
            times: dict[str, list[float]] = {name: [] for name in clients}
            for number in range(ROUNDS + 3):
                for name, client in clients.items():
                    took = _round(client)
                    if number >= 3:  # the first ones warm up
                        times[name].append(took)
    middle = {name: statistics.median(taken) for name, taken in times.items()}
    print("  " + ", ".join(f"{name} {value * 1e6:.0f} us a call" for name, value in middle.items()))
    ratio(
        "a call with a cached token",
        middle["cached token"] / middle["no auth"],
        "a call without auth",
        "<= 1.1",
    )


def _round(client: Client) -> float:
    options, action = client.options, flight.Action("health", b"")
    start = time.perf_counter()
    for _ in range(CALLS):
        list(client.connection.do_action(action, options))
    return (time.perf_counter() - start) / CALLS


if __name__ == "__main__":
    main()
