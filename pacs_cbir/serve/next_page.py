"""How the next page of an answer is asked for (RFC 8288)."""

from __future__ import annotations

from typing import Any

from pacs_cbir.search.query import Answer
from pacs_cbir.serve.asked import MAX_OFFSET, MAX_QUERY_BYTES, Asked

AS_OF = "Pacs-Cbir-As-Of"

DESCRIBED: dict[str, Any] = {
    AS_OF: {
        "description": "The state that is answered: `as_of` of the next pages.",
        "schema": {"type": "string"},
    },
    "Link": {
        "description": 'Where a GET request has more answers, the next page, `rel="next"`: the same query with `as_of` '
        "and `offset`, relative to the URL that was asked.",
        "schema": {"type": "string"},
    },
}
"""OpenAPI's words for the fields."""


def page_fields(query: Asked, answer: Answer) -> dict[str, str]:
    """The header fields that lead to the next page."""
    if answer.as_of is None:
        return {}
    fields = {AS_OF: str(answer.as_of)}
    following = query.query.offset + query.query.limit
    if query.url is not None and following < min(answer.total, MAX_OFFSET + 1):
        url = query.url.include_query_params(offset=following, as_of=str(answer.as_of))
        if len(url.query) <= MAX_QUERY_BYTES:
            # Relative: a proxy may have given this another host and path.
            fields["Link"] = f'<?{url.query}>; rel="next"'
    return fields
