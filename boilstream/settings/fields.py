"""What the declarations of settings share."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?(:[0-9]{1,5})?")


def setting(description: str, *, example: str, **kwargs: Any) -> Any:
    """A field with what the reference says of it; `kwargs` go to `pydantic.Field`."""
    return Field(description=description, examples=[example], **kwargs)


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(item for item in (part.strip() for part in value.split(",")) if item)
    return value


def _bare_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError("must be a host name without scheme and path")
    return value.lower()


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_commas)]
"""A tuple that is written as a comma list: `a,b`; blanks around items are dropped."""

Host = Annotated[str, AfterValidator(_bare_host)]
"""A host name without scheme and path, which may carry a port; in lower case."""
