"""`docs/rest.md`, made from the operations themselves: `python -m modelyard.api.reference > docs/rest.md`."""

import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from modelyard.api.openapi import errors_of
from modelyard.api.operation import Operation, Operations
from modelyard.api.routes import RESOURCES

_HEAD = """\
# The REST API

<!-- Made by `python -m modelyard.api.reference`; a test fails when it is stale. -->

Everything below is under `/api/v1`. `GET /api/v1/openapi.json` is the same in full, as an OpenAPI 3.1
document, made from the code that serves it.

```sh
curl -H "Authorization: Bearer $TOKEN" https://hub.example/api/v1/user
curl -u alice:$TOKEN -X POST -H 'Content-Type: application/json' \\
     -d '{"owner": "alice", "name": "net", "visibility": "public"}' https://hub.example/api/v1/repositories
```

## What holds for every operation

**Logging in.** `Authorization: Bearer TOKEN`, or Basic with a user and a password, or with any user and a
token as the password. There are no sessions and no cookies. Without the header you are anonymous, and see
what is public, unless the server says `[auth] anonymous_read = false`.

**Bodies** are JSON, sent as `application/json`, of at most `[http] max_json_bytes`. An unknown member is
refused, and so is an unknown or repeated query parameter: a typing mistake never silently means "default".
With `PATCH`, what is left out stays as it is.

**Refusals** are problem documents (RFC 9457, `application/problem+json`). `code` is stable and says which
refusal it is; `detail` is one sentence for people. `invalid_request` has `errors`, each with the JSON path
of what does not fit.

```json
{"type": "about:blank", "title": "Unprocessable Entity", "status": 422, "code": "invalid_request",
 "detail": "body: Expected `str`, got `int` at $.name", "instance": "/api/v1/repositories",
 "request_id": "5f0c3a9be21d4476",
 "errors": [{"in": "body", "path": "$.name", "message": "Expected `str`, got `int`"}]}
```

| status | meaning |
|---|---|
| 400 | the request is no valid JSON, or the cursor is none of this list |
| 401 | nobody is logged in, or the credentials are wrong; also for what may not exist |
| 403 | you see the thing, and may not do this to it; `detail` says what is missing |
| 404 | it does not exist, or you may not know that it does |
| 405 | the path does not know the method; `Allow` has those that it knows |
| 409 | it exists already, or somebody else was faster |
| 412 | the branch is not where you said it is (`stale_parent`) |
| 413, 415 | the body is too large; it is not sent as `application/json` |
| 416 | the range starts behind the end of the file |
| 422 | well formed, and impossible |
| 429 | too many requests or failed logins; `Retry-After` has the seconds to wait |
| 503 | a part that the answer needs is out of reach; nothing was changed |

**Lists** come in pages of `limit` items (1 to 100, 30 by default). While there is more, the answer has
`Link: <URL>; rel="next"`: follow it as it is. A cursor is good for the list that gave it; anything else is
`invalid_cursor`. What is added or removed between two pages never repeats or hides another item.

**Versions.** Every `GET` answers with an `ETag`; sent back in `If-None-Match`, it gets `304` without a body
as long as nothing changed. The tag of a file's content is the blob's id, of a commit the commit's id.
Content asked for by a full commit id never changes, and may be kept for a year. `HEAD` works wherever `GET`
does.

**Addresses.** `{type}` is `models` or `datasets`. A revision is one segment: a branch, a tag, a full ref,
`HEAD`, or a commit id of at least 7 digits, and a slash in it is written `%2F` (`feature%2Fa`,
`refs%2Fheads%2Fmain`). A file's path is the rest of the address, with its slashes. Each segment is decoded
once. File names that are not UTF-8 are written byte by byte (`%FF`); the `url` of each entry of a directory
is exact.

**Repositories that moved.** The old address answers `307 Temporary Redirect` to the same operation at the
new one, for every method, to those who may see the repository. It is temporary because a new repository may
take the old address; what the status keeps is the method and the body. Users and organisations answer under
their former names without a redirect.

**Rate limits** count by user, or by address for anonymous callers, for each worker; `RateLimit` and
`RateLimit-Policy` say what is left.

**Files** are served as `text/plain` or `application/octet-stream` only, sandboxed and never sniffed, so
that no browser runs what somebody pushed. `Range` asks for one range of bytes.

## Operations

The status of success comes first, then what else may be answered. Left out is what goes without saying:
`401`, `404 not_found`, `422 invalid_request`, `429` and `503`, and with a body `400 bad_request`, `400
invalid_json`, `413` and `415`.
"""

_UNSAID = frozenset(
    """
    authentication_required bad_request invalid_credentials invalid_json invalid_request not_found
    payload_too_large too_many_requests unavailable unsupported_media_type
    """.split()
)


def reference() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(line for resource in RESOURCES for line in _resource(resource))])


def _resource(resource: Operations) -> Iterator[str]:
    yield f"### {resource.tag.capitalize()}\n\n{resource.description}\n"
    for _, alike in groupby(resource, key=lambda one: (one.method, one.summary)):
        yield from _operation(list(alike))


def _operation(alike: Sequence[Operation]) -> Iterator[str]:
    """One operation, or the same one at several places."""
    operation = alike[0]
    yield "".join(f"#### `{one.method} {one.path}`\n" for one in alike)
    description = " ".join(operation.description.split())
    whom = "; ".join(dict.fromkeys(one.access.words for one in alike))
    yield " ".join(filter(None, [f"{operation.summary}.", description, f"For {whom}."])) + "\n"
    query = operation.inputs.query.__struct_fields__
    if query:
        yield "Query: " + ", ".join(f"`{name}`" for name in query) + ".\n"
    if operation.inputs.body is not None:
        yield f"Body: `{operation.inputs.body.__name__}`.\n"
    yield ", ".join(sorted({answer for one in alike for answer in _answers(one)})) + ".\n"


def _answers(operation: Operation) -> Iterator[str]:
    for status in (operation.status, *operation.statuses):
        yield f"`{status}`"
    for error in errors_of(operation):
        if error.code not in _UNSAID:
            yield f"`{error.status} {error.code}`"


if __name__ == "__main__":
    sys.stdout.write(reference())
