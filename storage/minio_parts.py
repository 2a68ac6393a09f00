"""S3 multipart uploads; blocking, each call in a thread.

The SDK has these calls, but neither their checksums nor a way to go through more than a thousand parts.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from minio.error import S3Error
from minio.helpers import md5sum_hash
from urllib3.response import BaseHTTPResponse

from storage.minio_bucket import Bucket, code_of, insist, require_etag
from storage.parts import other_part, parts_not_found
from storage.protocol import PartsNotFound, PartsRejected, StoredPart
from storage.spool import Spool

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
# The second is what MinIO calls an id that it cannot have made.
_GONE = {"NoSuchUpload", "XMinioInvalidResourceName"}
# Each server has its own alphabet. With a line break in it, MinIO takes a part for a whole object.
_ID = re.compile(r"[A-Za-z0-9._~+/=-]+")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SummedPart:
    """A part, and the base64 of its sha256 if the store computed that."""

    part: StoredPart
    sha256: str | None


class Parts:
    """The multipart uploads of one object, which each call names."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name

    def begin(self, *, summed: bool = False) -> str:
        """`summed`: the store takes only parts with a sha256, and keeps it."""
        headers = {"x-amz-checksum-algorithm": "SHA256"} if summed else {}
        client = self._bucket.client
        return insist(lambda: client._create_multipart_upload(self._bucket.name, self._name, dict(headers)))

    def upload(self, parts_id: str, number: int, spool: Spool) -> StoredPart:
        check_id(parts_id)
        with spool.whole() as body:
            arguments = (self._bucket.name, self._name, body, None, parts_id, number)
            etag = _found(lambda: self._bucket.client._upload_part(*arguments))
        return StoredPart(number, spool.size, require_etag(etag))

    def list(self, parts_id: str) -> Sequence[SummedPart]:
        check_id(parts_id)
        return _found(lambda: [part for page in self._pages(parts_id) for part in page])

    def complete(self, parts_id: str, parts: Sequence[StoredPart], *, sha256: str | None = None) -> None:
        """With `sha256` (base64) of the one part, the store compares that, too."""
        check_id(parts_id)
        body = _selection(parts, sha256)
        try:
            answer = _found(lambda: insist(lambda: self._post(parts_id, body)))
        except S3Error as error:
            raise _rejected(error, parts) or error from error
        require_etag(answer.findtext("{*}ETag"))

    def abort(self, parts_id: str) -> None:
        with suppress(PartsNotFound):
            check_id(parts_id)
            client = self._bucket.client
            _found(lambda: client._abort_multipart_upload(self._bucket.name, self._name, parts_id))

    def ids(self) -> Sequence[str]:
        """The uploads of this object that are under way, up to 1000."""
        found = self._bucket.client._list_multipart_uploads(self._bucket.name, prefix=self._name)
        # To S3 the name is a prefix.
        return [upload.upload_id or "" for upload in found.uploads if upload.object_name == self._name]

    def _pages(self, parts_id: str) -> "Iterator[Sequence[SummedPart]]":
        marker = "0"
        while True:
            query = {"uploadId": parts_id, "max-parts": "1000", "part-number-marker": marker}
            answer = self._bucket.client._execute(
                "GET", self._bucket.name, self._name, query_params=dict(query)
            )
            page = _xml(answer)
            yield [_parsed(part) for part in page.iterfind("{*}Part")]
            marker = page.findtext("{*}NextPartNumberMarker") or ""
            if page.findtext("{*}IsTruncated") != "true" or not marker:
                return

    def _post(self, parts_id: str, body: bytes) -> Element:
        answer = self._bucket.client._execute(
            "POST",
            self._bucket.name,
            self._name,
            body=body,
            headers={"Content-Type": "application/xml", "Content-MD5": md5sum_hash(body) or ""},
            query_params={"uploadId": parts_id},
        )
        return _xml(answer)


def check_id(parts_id: str) -> str:
    """Returns the id itself, or raises `PartsNotFound` for what no server can have made."""
    if not _ID.fullmatch(parts_id):
        raise parts_not_found()
    return parts_id


def _selection(parts: Sequence[StoredPart], sha256: str | None) -> bytes:
    root = Element("CompleteMultipartUpload", xmlns=_NAMESPACE)
    for part in parts:
        tag = SubElement(root, "Part")
        SubElement(tag, "PartNumber").text = str(part.number)
        SubElement(tag, "ETag").text = f'"{part.etag}"'
        if sha256 is not None:
            SubElement(tag, "ChecksumSHA256").text = sha256
    return ElementTree.tostring(root)


def _xml(answer: BaseHTTPResponse) -> Element:
    # Of the server that has all our bytes, and the SDK parses its other answers in this way, too.
    return ElementTree.fromstring(answer.data.decode())  # noqa: S314


def _parsed(tag: Element) -> SummedPart:
    number, size = (int(tag.findtext("{*}" + name) or 0) for name in ("PartNumber", "Size"))
    etag = (tag.findtext("{*}ETag") or "").strip('"')
    return SummedPart(StoredPart(number, size, etag), tag.findtext("{*}ChecksumSHA256"))


def _found(call: Callable[[], T]) -> T:
    try:
        return call()
    except S3Error as error:
        if code_of(error) in _GONE:
            raise parts_not_found() from error
        raise


def _rejected(error: S3Error, parts: Sequence[StoredPart]) -> PartsRejected | None:
    match code_of(error):
        case "InvalidPart" if len(parts) == 1:
            return other_part(parts[0].number)
        case "InvalidPart":
            return PartsRejected("parts are missing or have other bytes than claimed")
        case "EntityTooSmall":
            return PartsRejected("every part but the last must have 5 MiB or more")
        case "EntityTooLarge":
            return PartsRejected("the parts together are larger than the object store takes")
        case _:
            return None
