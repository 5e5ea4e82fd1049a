"""A complete BoilStream on one computer: certificates, an identity provider, ready snippets.

Only `boilstream dev` and `boilstream token` use this package; `serve` never does.
"""
