"""A token issuer in a process of its own: `python -m tests.support.issuer FOLDER` until its input ends."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from boilstream.dev.certificates import make_certificates
from boilstream.dev.issuer import DevIssuer
from boilstream.dev.tokens import mint

AUDIENCE = "api://boilstream"


@dataclass(slots=True)
class IssuerProcess:
    """A running issuer, and the certificates that tests serve with."""

    folder: Path
    domain: str
    process: subprocess.Popen[str]

    @classmethod
    def start(cls, folder: Path) -> Self:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.issuer", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        domain = process.stdout.readline().strip()
        assert domain, "the issuer did not start"
        return cls(folder, domain, process)

    @property
    def ca_cert(self) -> Path:
        return self.folder / "ca.crt"

    def token(
        self, *, groups: str = "", scopes: str = "", subject: str = "00u123456789abcdef", age: float = 0
    ) -> str:
        """An access token as Okta would issue it, valid for an hour; issued `age` seconds ago."""
        return mint(
            self.folder,
            groups=groups.split(),
            scopes=scopes.split(),
            subject=subject,
            clock=lambda: time.time() - age,
        )

    def environment(self) -> dict[str, str]:
        """Settings that make a server trust this issuer and serve with its certificates."""
        return {
            "AUTH_PROVIDERS": "okta",
            "OKTA_ORG_DOMAIN": self.domain,
            "OKTA_AUDIENCE": AUDIENCE,
            "AUTH_CA_FILE": str(self.ca_cert),
            "TLS_CERT_PATH": str(self.folder / "server.crt"),
            "TLS_KEY_PATH": str(self.folder / "server.key"),
            "ADMIN_GROUPS": "Admins",
            "WRITE_GROUPS": "Writers",
            "READ_ONLY_GROUPS": "Readers",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate(timeout=20)


def main(folder: Path) -> None:
    issuer = DevIssuer(folder, port=0, audience=AUDIENCE, certificates=make_certificates(folder))
    issuer.start()
    print(issuer.domain, flush=True)
    sys.stdin.read()
    issuer.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
