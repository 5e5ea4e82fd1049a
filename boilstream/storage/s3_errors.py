"""What a failed S3 call means: whether a retry can help, and which setting to look at if not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import botocore.exceptions as aws
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from boilstream.errors import BoilStreamError
from boilstream.storage.base import ObjectExists, ObjectMissing, StoreMisconfigured, StoreUnavailable

_REGION = "the bucket is elsewhere: check AWS_DEFAULT_REGION, S3_ENDPOINT_URL and S3_BUCKET"
_CREDENTIALS = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE or the role of this machine"
_EXPIRED = "the temporary credentials have ended or do not fit: check AWS_SESSION_TOKEN"
_PERMISSION = (
    "these credentials lack a permission: allow s3:ListBucket on the bucket S3_BUCKET, and s3:GetObject, "
    "s3:PutObject and s3:DeleteObject on the keys below S3_PREFIX"
)
_FEATURE = "the store lacks an operation that BoilStream needs: check S3_ENDPOINT_URL"

_PERMANENT = {
    "NoSuchBucket": "there is no such bucket: check S3_BUCKET and S3_ENDPOINT_URL",
    "InvalidBucketName": "this cannot be the name of a bucket: check S3_BUCKET",
    "InvalidAccessKeyId": "the store does not know the key id: check AWS_ACCESS_KEY_ID and S3_ENDPOINT_URL",
    "SignatureDoesNotMatch": "the secret does not fit AWS_ACCESS_KEY_ID: check AWS_SECRET_ACCESS_KEY",
    "InvalidToken": _EXPIRED,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "AccessDenied": _PERMISSION,
    "403": _PERMISSION,
    "PermanentRedirect": _REGION,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "KeyTooLongError": "the store allows only shorter names: use a shorter S3_PREFIX or topic name",
    "RequestTimeTooSkewed": "the clock of this machine is wrong: set it, and keep it right with NTP",
    "NotImplemented": _FEATURE,
    "501": _FEATURE,
    "MethodNotAllowed": _FEATURE,
    "405": _FEATURE,
}
"""Error codes (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html) that no retry can
change, and what to do. Plain numbers stand for answers without a code."""

_PASSING = frozenset({
    "BadDigest", "ConditionalRequestConflict", "IncompleteBody", "InternalError", "OperationAborted",
    "RequestLimitExceeded", "RequestTimeout", "RequestTimeoutException", "ServiceUnavailable", "SlowDown",
    "TemporaryRedirect", "Throttling", "ThrottlingException", "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
})  # fmt: skip
_PASSING_STATUS = frozenset({307, 408, 409, 425, 429})

_NO_CREDENTIALS = (
    aws.NoCredentialsError, aws.PartialCredentialsError, aws.ProfileNotFound, aws.NoAuthTokenError,
    aws.TokenRetrievalError, aws.SSOError, aws.LoginError, aws.ConfigNotFound, aws.ConfigParseError,
)  # fmt: skip
_WRONG_ENDPOINT = (aws.NoRegionError, aws.EndpointProviderError, aws.ValidationError, aws.InvalidConfigError)


@contextmanager
def translated(doing: str, where: str, *, creates: bool = False, needs: bool = False) -> Iterator[None]:
    """Turn every error of the S3 client inside the block into one of the store's.

    `doing` and `where` (`write`, `s3://bucket/key`) begin the message. 412 means ObjectExists to a call
    that `creates` and ObjectMissing to one that `needs` the object; 404 means ObjectMissing to the latter
    alone. Messages quote the code of an answer and none of its text, which may hold parts of a signature.
    """
    what = f"cannot {doing} {where}"
    try:
        yield
    except aws.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status == 412 and creates:
            raise ObjectExists(f"{what}: there is an object already") from error
        if status == 412 and needs:
            raise ObjectMissing(f"{what}: the object has been replaced") from error
        if status == 404 and needs and code not in _PERMANENT:
            raise ObjectMissing(f"{what}: there is no such object") from error
        raise _from_answer(code, status, what) from error
    except (aws.BotoCoreError, ResponseParserError, HTTPError, OSError, ValueError, KeyError) as error:
        raise _without_answer(error, what) from error


def _from_answer(code: str, status: int, what: str) -> BoilStreamError:
    if code in _PERMANENT:
        return StoreMisconfigured(f"{what}: {code}: {_PERMANENT[code]}")
    if code in _PASSING or status in _PASSING_STATUS or status >= 500 or status < 300:
        return StoreUnavailable(f"{what}: the store answered {code} ({status})")
    hint = _REGION if status < 400 else _PERMISSION if status in (401, 403) else "check S3_ENDPOINT_URL"
    return StoreMisconfigured(f"{what}: the store refused with {code} ({status}): {hint}")


def _without_answer(error: Exception, what: str) -> BoilStreamError:
    if isinstance(error, _NO_CREDENTIALS):
        return StoreMisconfigured(f"{what}: no usable credentials ({type(error).__name__}): {_CREDENTIALS}")
    if isinstance(error, aws.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreMisconfigured(
            f"{what}: the certificate of the store is not trusted: set AWS_CA_BUNDLE to the file of its CA"
        )
    if isinstance(error, aws.ParamValidationError):
        return StoreMisconfigured(f"{what}: the client refuses these names: check S3_BUCKET and S3_PREFIX")
    if isinstance(error, OSError):  # some errors of the client are both this and ValueError
        return StoreUnavailable(f"{what}: {_CAUSES.get(type(error), 'the connection failed')}")
    if isinstance(error, (*_WRONG_ENDPOINT, ValueError)):
        return StoreMisconfigured(f"{what}: check S3_ENDPOINT_URL and AWS_DEFAULT_REGION")
    if isinstance(error, (ResponseParserError, aws.PaginationError, KeyError)):
        return StoreUnavailable(
            f"{what}: the answer is cut or not that of an S3 server; check S3_ENDPOINT_URL"
        )
    return StoreUnavailable(f"{what}: {_CAUSES.get(type(error), 'the connection failed')}")


_CAUSES: dict[type[Exception], str] = {
    aws.EndpointConnectionError: "no connection; is the store up, and is S3_ENDPOINT_URL right?",
    aws.ConnectTimeoutError: "no connection in time; is the store up, and is S3_ENDPOINT_URL right?",
    aws.ReadTimeoutError: "no answer in time",
    aws.ConnectionClosedError: "the connection was cut",
    aws.ResponseStreamingError: "the connection was cut in the middle of the answer",
    aws.IncompleteReadError: "the answer is shorter than announced",
    aws.FlexibleChecksumError: "the bytes that arrived do not fit their checksum",
    aws.CredentialRetrievalError: f"the credentials cannot be fetched now; {_CREDENTIALS}",
    aws.MetadataRetrievalError: f"the credentials cannot be fetched now; {_CREDENTIALS}",
    aws.ProxyConnectionError: "no connection to the proxy; check HTTPS_PROXY and NO_PROXY",
}
