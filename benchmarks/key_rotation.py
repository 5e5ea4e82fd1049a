"""Rotation of signing keys while 50 streams write: no stream may be lost."""

from __future__ import annotations

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import flight

from benchmarks.report import ratio
from tests.support.keyserver import KeyServer
from tests.support.server import Client, ServerProcess
from tests.support.tokens import AUDIENCE, golden, jwk, rsa_key, token

STREAMS = 50
BATCHES = 20
ROWS = 1000


def main() -> None:
    """Print the part of the streams that were acknowledged, and of their rows that are there."""
    print(f"key rotation: {STREAMS} open streams of {BATCHES} batches; the key changes half way")
    rows = pa.record_batch({"n": pa.array(range(ROWS))})
    with tempfile.TemporaryDirectory(prefix="boilstream-bench-") as name:
        folder = Path(name)
        with KeyServer({"keys": [jwk(rsa_key("old"), "old")]}, folder) as keys:
            environment = {
                "AUTH_PROVIDERS": "okta",
                "OKTA_ORG_DOMAIN": keys.domain,
                "OKTA_AUDIENCE": AUDIENCE,
                "AUTH_CA_FILE": str(keys.ca_file),
                "WRITE_GROUPS": "DataEngineers",
                "DATA_DIR": f"{folder}/data",
                "LOG_LEVEL": "info",
            }
            with ServerProcess(environment) as server:
                half_way = threading.Barrier(STREAMS + 1)
                rotated = threading.Event()

                def stream(number: int) -> str | None:
                    client = Client(server.location, _token(keys, "old", number))
                    writer, reader = client.connection.do_put(
                        flight.FlightDescriptor.for_path("s3", "rotation"), rows.schema, client.options
                    )
                    try:
                        for batch in range(BATCHES):
                            if batch == BATCHES // 2:
                                half_way.wait(60)
                                rotated.wait(60)
                            writer.write_batch(rows)
                        writer.done_writing()
                        answer = reader.read()
                        writer.close()
                        return None if answer is not None else "no acknowledgement"
                    except (flight.FlightError, pa.ArrowException, threading.BrokenBarrierError) as error:
                        return str(error)

                with ThreadPoolExecutor(STREAMS) as pool:
                    streams = [pool.submit(stream, number) for number in range(STREAMS)]
                    half_way.wait(60)
                    keys.jwks = {"keys": [jwk(rsa_key("new"), "new")]}
                    client = Client(server.location, _token(keys, "new", STREAMS))
                    client.action("whoami")  # the unknown key id makes the server fetch the new keys
                    rotated.set()
                    failed = [problem for each in streams if (problem := each.result())]
                stored = client.get(["s3", "rotation"]).num_rows
    for problem in failed[:3]:
        print(f"  failed: {problem}")
    ratio("streams that ended well", (STREAMS - len(failed)) / STREAMS, "all streams", "1")
    ratio("rows that are there", stored / (STREAMS * BATCHES * ROWS), "all rows sent", "1")


def _token(keys: KeyServer, key: str, number: int) -> str:
    claims: dict[str, Any] = dict(golden(time.time(), issuer=f"https://{keys.domain}/oauth2/default").user)
    return token({**claims, "jti": f"AT.{number}"}, key=rsa_key(key), header={"kid": key})


if __name__ == "__main__":
    main()
