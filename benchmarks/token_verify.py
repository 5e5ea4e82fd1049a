"""Verification of RS256 tokens that no cache knows, against the bare signature check of cryptography."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from benchmarks.report import ratio
from boilstream.auth import jws
from boilstream.auth.expiry import ExpiryRule
from boilstream.auth.manager import AuthManager
from boilstream.auth.providers import okta
from tests.support.tokens import AUDIENCE, NOW, ORG_DOMAIN, FakeFetch, golden, jwks, rsa_key, token

ROUNDS = 200
CALLS = 50


def main() -> None:
    """Print the ratios of CPU times; the least of many short rounds, since machines are shared."""
    made = [token({**golden().user, "jti": f"AT.{number:040}"}) for number in range(ROUNDS * CALLS)]
    key_set, public = jwks(), rsa_key().public_key()
    manager = AuthManager(
        [okta.provider(org_domain=ORG_DOMAIN, audience=AUDIENCE)],
        fetch=FakeFetch(),
        expiry=ExpiryRule(clock=lambda: NOW + 1.0),
        max_cached_tokens=CALLS,
    )
    manager.authenticate(token(golden().user))  # fetches the keys
    data, _, signature = made[0].rpartition(".")
    signed, value = data.encode(), base64.urlsafe_b64decode(signature + "==")

    def bare(_: str) -> None:
        public.verify(value, signed, padding.PKCS1v15(), hashes.SHA256())

    def verify(each: str) -> None:
        jws.verify(each, key_set, ("RS256",))

    def authenticate(each: str) -> None:
        manager.authenticate(each)

    works: dict[str, Callable[[str], None]] = {
        "bare": bare,
        "verify": verify,
        "authenticate": authenticate,
        "cached": authenticate,
    }
    best = dict.fromkeys(works, float("inf"))
    for number in range(ROUNDS):
        tokens = made[number * CALLS : (number + 1) * CALLS]
        for name, work in works.items():  # authenticate comes before cached: the same tokens again
            start = time.thread_time()
            for each in tokens:
                work(each)
            best[name] = min(best[name], (time.thread_time() - start) / CALLS * 1e6)
    manager.close()
    print(f"token verification: RSA 2048, {len(made[0])} characters, each token once")
    print("  " + ", ".join(f"{name} {value:.1f} us" for name, value in best.items()))
    ratio("jws.verify", best["verify"] / best["bare"], "cryptography's own verify call", "<= 1.5")
    ratio("AuthManager.authenticate", best["authenticate"] / best["bare"], "the same", "none")


if __name__ == "__main__":
    main()
