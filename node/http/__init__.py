"""The HTTP API of a node (aiohttp): JSON in and out, errors as problem+json, one table of routes with scopes.

    app ── route table ── routes_* ── Call ─┬─ bodies, models   what comes in: bounded, exact, validated
                                            ├─ Service          what the node does with it
                                            └─ views, sse       what goes out

`service.Service` is all that this package knows of a node; it opens no connection and reads no setting.
Validation and the OpenAPI document come from the same types (`models`), routes and scopes from one table.
"""
