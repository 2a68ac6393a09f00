"""Where a running server sends clients for large files, as MinIO deserves it."""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.lfs_places import Place, Places, lfs_places
from tests.support.nginx import nginx_before_minio
from tests.support.processes import wait_until
from tests.support.raw_http import basic, request
from tests.support.yard import USER


@pytest.fixture
def places(tmp_path: Path) -> Iterator[Places]:
    with lfs_places(tmp_path / "places") as made:
        yield made


async def made(places: Places, transfer: str, public: str) -> Place:
    env = {"MODELYARD_LFS__TRANSFER": transfer, "MODELYARD_STORAGE__PUBLIC_ENDPOINT": public}
    return await places.make("large", "redirect", env=env)


async def upload_goes_to(place: Place) -> str:
    """Host and port of the link to upload an object with."""
    path = await place.yard.new_repository()
    body = json.dumps({"operation": "upload", "objects": [{"oid": "ab" * 32, "size": 7}]}).encode()
    headers = {**basic(USER, place.yard.secret), "Content-Type": "application/vnd.git-lfs+json"}
    reply = await request(
        place.yard.server.http, "POST", f"/{path}.git/info/lfs/objects/batch", headers, body
    )
    assert reply.status == 200, reply.text
    [answered] = json.loads(reply.body)["objects"]
    href: str = answered["actions"]["upload"]["href"]
    return urlsplit(href).netloc


@pytest.mark.parametrize("transfer", ["auto", "redirect"])
async def test_a_bare_minio_is_talked_about(places: Places, transfer: str) -> None:
    minio = await places.minio()
    place = await made(places, transfer, minio.endpoint)
    event = {"auto": "lfs.transfer.proxied", "redirect": "lfs.transfer.unsafe"}[transfer]
    wait_until(lambda: place.yard.server.log(event), "the warning")
    [warning] = place.yard.server.log(event)
    assert warning["level"] == "warning"
    assert "unsigned trailers" in warning["reason"]
    assert "deploy/README.md" in warning["remedy"]
    assert await upload_goes_to(place) == (place.netloc if transfer == "auto" else minio.endpoint)


async def test_a_proxy_makes_it_safe(places: Places, tmp_path: Path) -> None:
    minio = await places.minio()
    with nginx_before_minio(tmp_path / "nginx", minio.endpoint, "large") as public:
        place = await made(places, "auto", public)
        wait_until(lambda: place.yard.server.log("lfs.transfer.redirects"), "the verdict")
        assert await upload_goes_to(place) == public
    assert not place.yard.server.log("lfs.transfer.proxied")
