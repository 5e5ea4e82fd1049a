"""The page of the development issuer: a form that makes a token. Everything shown is escaped."""

from __future__ import annotations

from collections.abc import Collection
from html import escape

from boilstream.dev.tokens import SCOPES, IssuerState

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer that shows the page."""

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0 1rem}"
    "label{display:block;margin:.6rem 0}"
    "input[type=text],textarea{width:100%;box-sizing:border-box;font:inherit}"
    "textarea{font-family:monospace;font-size:13px}dt{font-weight:600}dd{margin:0 0 .4rem}.error{color:#a00}"
)


def render_page(
    state: IssuerState,
    *,
    subject: str,
    groups: str,
    scopes: Collection[str],
    token: str | None = None,
    error: str | None = None,
) -> str:
    """The page as HTML: the form filled with `subject`, `groups` (a comma list) and `scopes`; the outcome."""
    boxes = "\n".join(
        f'<label><input type="checkbox" name="scope" value="{escape(scope)}"'
        f"{' checked' if scope in scopes else ''}> {escape(scope)}</label>"
        for scope in SCOPES
    )
    outcome = ""
    if error is not None:
        outcome = f'<p class="error" role="alert">{escape(error)}</p>'
    if token is not None:
        outcome = (
            "<h2>Token</h2>\n<p>Send it as <code>Authorization: Bearer</code> followed by:</p>\n"
            f'<textarea id="token" readonly rows="12" aria-label="token">{escape(token)}</textarea>'
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>BoilStream development issuer</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Development issuer</h1>
<p>It behaves like an Okta custom authorization server. Never use it in production: it gives a token to
everyone who asks.</p>
<dl>
<dt>Issuer</dt><dd><code>{escape(state.issuer)}</code></dd>
<dt>Audience</dt><dd><code>{escape(state.audience)}</code></dd>
<dt>Client id</dt><dd><code>{escape(state.client_id)}</code></dd>
</dl>
<form method="post" action="/mint">
<label>Subject <input type="text" name="subject" value="{escape(subject)}" required></label>
<label>Groups, separated by commas <input type="text" name="groups" value="{escape(groups)}"></label>
{boxes}
<button>Make a token</button>
</form>
{outcome}
</body>
</html>
"""
