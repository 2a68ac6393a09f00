"""Rules about runs and the list of requests, over REST; tokens for runs."""

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from core.models import Push, RequestKind, TriggerRequest, now
from tests.support.api import ApiServer, commit

RULE = {
    "name": "finetune",
    "run": "training",
    "on": {"branches": ["main", "release/*"], "paths": ["data/**"]},
    "when": {"license": ["mit", "apache-2.0"], "min_parameters": 1000},
    "from_runs": True,
    "parameters": {"epochs": 3, "of": "${commit}", "nested": [None, {"a": 1.5}]},
}


async def test_the_life_of_a_rule(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    made = await alice("POST", f"{path}/rules", RULE)
    assert made.status == 201
    url = made.headers["Location"]
    assert url == f"{each_api.base}/api/v1{path}/rules/finetune"
    shown = made.json
    assert {key: shown[key] for key in RULE} == RULE
    assert (shown["enabled"], shown["created_by"]) == (True, "alice")
    assert await alice.ok("GET", url) == shown
    plain = await alice.ok("POST", f"{path}/rules", {"name": "deploy", "run": "deployment", "enabled": False})
    assert (plain["on"], plain["when"], plain["parameters"], plain["enabled"]) == ({}, {}, {}, False)
    assert [one["name"] for one in await alice.ok("GET", f"{path}/rules")] == ["deploy", "finetune"]
    pages = await alice.pages(f"{path}/rules?limit=1")
    assert [one["name"] for page in pages for one in page] == ["deploy", "finetune"]
    changed = await alice.ok("PATCH", url, {"enabled": False, "on": {"tags": ["v*"]}, "parameters": {}})
    assert (changed["enabled"], changed["on"], changed["parameters"]) == (False, {"tags": ["v*"]}, {})
    assert (changed["when"], changed["run"], changed["from_runs"]) == (RULE["when"], "training", True)
    assert changed["updated_at"] > shown["updated_at"]
    assert (await alice.ok("PATCH", url, {"enabled": True}))["enabled"] is True
    assert (await alice("POST", f"{path}/rules", RULE)).code == "already_exists"
    await alice.ok("DELETE", url)
    assert (await alice("GET", url)).code == "not_found"
    assert (await alice("PATCH", url, {})).code == "not_found"
    entries = await each_api.root.ok("GET", "/audit?target=alice/net")
    actions = [one["action"] for one in entries if one["action"].startswith("trigger_rule")]
    assert actions == [f"trigger_rule:{verb}" for verb in ("remove", "update", "update", "add", "add")]
    assert "epochs" not in str(entries), "parameters may be secret"


@pytest.mark.parametrize(
    ("members", "code", "place"),
    [
        ({"name": "a b"}, "invalid_request", "$.name"),
        ({"name": "a\n"}, "invalid_rule", "$.name"),
        ({"name": ""}, "invalid_request", "$.name"),
        ({"name": "x" * 65}, "invalid_request", "$.name"),
        ({"run": "dance"}, "invalid_request", "$.run"),
        ({"colour": 1}, "invalid_request", "$"),
        ({"on": {"branch": ["x"]}}, "invalid_request", "$.on"),
        ({"on": {"branches": "main"}}, "invalid_request", "$.on.branches"),
        ({"on": {"branches": ["[a"]}}, "invalid_rule", "$.on.branches[0]"),
        ({"on": {"paths": ["a"] * 101}}, "invalid_request", "$.on.paths"),
        ({"on": {"paths": ["!a"]}}, "invalid_rule", "$.on.paths[0]"),
        ({"when": {"task": "[a"}}, "invalid_rule", "$.when.task"),
        ({"when": {"min_rows": 2, "max_rows": 1}}, "invalid_rule", "$.when.min_rows"),
        ({"parameters": {"a": "${x}"}}, "invalid_rule", "$.parameters.a"),
        ({"parameters": {"a": "\0"}}, "invalid_rule", "$.parameters.a"),
        ({"parameters": {"a": 2**63}}, "invalid_rule", "$.parameters.a"),
        ({"parameters": {"a": "x" * 65_530}}, "invalid_rule", "$.parameters"),
        ({"parameters": []}, "invalid_request", "$.parameters"),
    ],
)
async def test_rules_that_cannot_be(api: ApiServer, members: dict[str, Any], code: str, place: str) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net")
    refused = await alice("POST", f"{path}/rules", {"name": "a", "run": "training", **members})
    assert refused.code == code, refused.body
    assert refused.json["errors"][0]["path"] == place
    assert await alice.ok("GET", f"{path}/rules") == []
    if "name" not in members:
        await alice.ok("POST", f"{path}/rules", {"name": "a", "run": "training"})
        assert (await alice("PATCH", f"{path}/rules/a", members)).code == code


async def test_deep_parameters(api: ApiServer) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net")
    for depth in (17, 500, 100_000):
        body = b'{"name":"a","run":"training","parameters":{"a":' + b"[" * depth + b"]" * depth + b"}}"
        refused = await alice(
            "POST", f"{path}/rules", data=body, headers={"Content-Type": "application/json"}
        )
        assert refused.status in {400, 422}
        assert refused.code in {"invalid_rule", "invalid_json", "invalid_request"}


async def test_a_hundred_rules_are_enough(api: ApiServer) -> None:
    alice = await api.user("alice")
    path = await api.repository(alice, "net")
    for number in range(100):
        await alice.ok("POST", f"{path}/rules", {"name": f"r{number}", "run": "training"})
    refused = await alice("POST", f"{path}/rules", {"name": "more", "run": "training"})
    assert refused.code == "unprocessable"


async def _request(api: ApiServer, path: str, number: int, **columns: Any) -> TriggerRequest:
    """A request as a push of that repository would leave it."""
    async with api.services.database.transaction() as session:
        push = (await session.scalars(select(Push).order_by(Push.id.desc()).limit(1))).one()
        row = TriggerRequest(
            repository_id=push.repository_id,
            push_id=push.id,
            rule=f"r{number}",
            kind=RequestKind.TRAINING,
            ref="refs/heads/main",
            commit="1" * 40,
            parameters={"number": number},
            chain=["req_before"],
            payload=msgspec.json.encode(
                {"source": "file", "actor": "bob", "metadata": {"task": "x"}}
            ).decode(),
            created_at=now() + timedelta(milliseconds=number // 2),  # two at each moment
        )
        for name, value in columns.items():
            setattr(row, name, value)
        session.add(row)
    return row


async def test_requests(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    assert await alice.ok("GET", f"{path}/requests") == []
    for number in range(7):
        await _request(each_api, path, number)
    last = await _request(each_api, path, 8, kind=RequestKind.DEPLOYMENT, ref="refs/tags/v1")
    listed = await alice.ok("GET", f"{path}/requests")
    assert listed[0] == {
        "id": last.id,
        "run": "deployment",
        "rule": "r8",
        "ref": "refs/tags/v1",
        "commit": "1" * 40,
        "parameters": {"number": 8},
        "chain": ["req_before"],
        "push_id": last.push_id,
        "created_at": listed[0]["created_at"],
    }
    assert sorted(one["rule"] for one in listed) == ["r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8"]
    assert [one["created_at"] for one in listed] == sorted(
        (one["created_at"] for one in listed), reverse=True
    )
    pages = await alice.pages(f"{path}/requests?limit=3")
    assert [one for page in pages for one in page] == listed
    assert [one["rule"] for one in await alice.ok("GET", f"{path}/requests?rule=r3")] == ["r3"]
    assert [one["rule"] for one in await alice.ok("GET", f"{path}/requests?run=deployment")] == ["r8"]
    assert [one["rule"] for one in await alice.ok("GET", f"{path}/requests?ref=refs/tags/v1")] == ["r8"]
    whole = await alice.ok("GET", f"{path}/requests/{last.id}")
    assert whole == {**listed[0], "source": "file", "actor": "bob", "metadata": {"task": "x"}}
    other = await each_api.repository(alice, "other")
    assert (await alice("GET", f"{other}/requests/{last.id}")).code == "not_found"


async def test_a_token_for_runs(each_api: ApiServer) -> None:
    alice = await each_api.user("alice")
    path = await each_api.repository(alice, "net")
    made = await alice.ok(
        "POST", "/users/alice/tokens", {"name": "runner", "scope": "write", "for_runs": True}
    )
    plain = await alice.ok("POST", "/users/alice/tokens", {"name": "ci", "scope": "write"})
    assert (made["for_runs"], plain["for_runs"]) == (True, False)
    listed = {one["name"]: one["for_runs"] for one in await alice.ok("GET", "/users/alice/tokens")}
    assert (listed["runner"], listed["ci"]) == (True, False)
    entries = await each_api.root.ok("GET", "/audit?action=token:mint")
    assert [one["details"]["for_runs"] for one in entries[:2]] == [False, True]
    for token, by_run in ((made, True), (plain, False)):
        await commit(each_api.bearer(token["token"]), path, {"x": token["name"].encode()})
        assert await _last_push_is_by_run(each_api) is by_run


async def _last_push_is_by_run(api: ApiServer) -> bool:
    async with api.services.database.read() as session:
        return (await session.scalars(select(Push).order_by(Push.id.desc()).limit(1))).one().by_run
