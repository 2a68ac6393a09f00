"""The document and the declarations agree, and nothing is left undescribed."""

import re
from pathlib import Path

import msgspec
import pytest

from core.access import Permission
from core.repositories import RepositoryInfo
from modelyard.api.call import Call
from modelyard.api.openapi import errors_of
from modelyard.api.operation import REPOSITORY, Access, Operation, Operations
from modelyard.api.reference import reference
from modelyard.api.routes import RESOURCES, openapi

OPERATIONS = [operation for resource in RESOURCES for operation in resource]


def test_names_are_unique() -> None:
    ids = [operation.id for operation in OPERATIONS]
    assert len(ids) == len(set(ids))
    places = [(operation.method, operation.path) for operation in OPERATIONS]
    assert len(places) == len(set(places))


def test_every_operation_is_in_the_document() -> None:
    paths = openapi()["paths"]
    assert isinstance(paths, dict)
    for operation in OPERATIONS:
        assert paths[operation.path][operation.method.lower()]["operationId"] == operation.id


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.id)
def test_every_operation_says_what_it_does(operation: Operation) -> None:
    assert operation.summary
    assert not operation.summary.endswith(".")
    assert {401, 422, 429, 503} <= {error.status for error in errors_of(operation)}


def test_every_operation_on_a_repository_opens_it_with_a_permission() -> None:
    for operation in OPERATIONS:
        if operation.path.startswith(REPOSITORY):
            assert operation.inputs.repository, operation.id
            assert operation.access.permission in set(Permission), operation.id


def test_what_changes_something_is_never_open_to_readers() -> None:
    harmless = {Access.ANYONE, Access.READER, Access.USER, Access.REPOSITORY_READ}
    for operation in OPERATIONS:
        assert operation.method == "GET" or operation.access not in harmless, operation.id


def test_every_reference_leads_somewhere() -> None:
    document = openapi()
    text = msgspec.json.encode(document).decode()
    components = document["components"]
    assert isinstance(components, dict)
    for kind, name in set(re.findall(r'"#/components/(\w+)/([^"]+)"', text)):
        assert name in components[kind]


def test_a_path_and_its_handler_must_agree() -> None:
    operations = Operations("x", "x")
    with pytest.raises(TypeError, match="disagree"):

        @operations.add("GET", "/things/{thing}", access=Access.ANYONE)
        async def read_thing(call: Call) -> None: ...

    with pytest.raises(TypeError, match="disagree"):

        @operations.add("GET", "/things", access=Access.REPOSITORY_READ)
        async def read_things(call: Call, repository: RepositoryInfo) -> None: ...


def test_the_reference_is_up_to_date() -> None:
    page = Path(__file__).parents[4] / "docs" / "rest.md"
    assert page.read_text() == reference(), "run: python -m modelyard.api.reference > docs/rest.md"
