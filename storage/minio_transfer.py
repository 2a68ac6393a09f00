"""One object on its way to or from a bucket; blocking, each call in a thread."""

import io

from minio.datatypes import Part
from minio.error import S3Error
from urllib3.response import BaseHTTPResponse

from storage.local_files import Draft
from storage.minio_bucket import Bucket, insist, require_etag
from storage.protocol import CHUNK_BYTES, MIN_PART_BYTES

# S3 takes 10,000 parts and nobody says beforehand how long a stream is, so parts double while it goes on:
# they reach 1 GiB, which is what one upload may hold in memory, after 0.9 TiB, and 5 TiB fit.
GROWTH_PARTS = 900
GROWN_BYTES = 16 * 1024**2
MOST_BYTES = 1024**3


def part_bytes(number: int, least: int) -> int:
    """How large part `number` of a stream of unknown length is; the first `GROWTH_PARTS` have `least`."""
    doublings = (number - 1) // GROWTH_PARTS
    return max(least, min(GROWN_BYTES << doublings, MOST_BYTES)) if doublings else least


class Upload:
    """One object, in one request or in parts of `room` bytes."""

    def __init__(self, bucket: Bucket, name: str, least_bytes: int) -> None:
        self._bucket = bucket
        self._name = name
        self._least_bytes = least_bytes
        self._id: str | None = None
        self._parts: list[Part] = []

    @property
    def room(self) -> int:
        """The size of the next part, unless it is the last."""
        return part_bytes(len(self._parts) + 1, self._least_bytes)

    def add(self, body: bytes) -> None:
        # The SDK's public upload pulls from a file object and so would hold a thread for as long as the
        # sender takes; hence its four multipart calls, which the contract suite exercises.
        client = self._bucket.client
        if self._id is None:
            self._id = insist(lambda: client._create_multipart_upload(self._bucket.name, self._name, {}))
        number = len(self._parts) + 1
        etag = client._upload_part(self._bucket.name, self._name, body, None, self._id, number)
        self._parts.append(Part(number, etag))

    def finish(self, body: bytes) -> None:
        """Sends the last bytes; the object is visible from now."""
        if self._id is None:
            require_etag(insist(lambda: self._put_whole(body)))
            return
        self.add(body)
        arguments = (self._bucket.name, self._name, self._id, self._parts)
        require_etag(insist(lambda: self._bucket.client._complete_multipart_upload(*arguments)).etag)
        self._id = None

    def abort(self) -> None:
        if self._id is not None:
            self._bucket.client._abort_multipart_upload(self._bucket.name, self._name, self._id)

    def _put_whole(self, body: bytes) -> str | None:
        part_size = max(len(body), MIN_PART_BYTES)
        stored = self._bucket.client.put_object(
            self._bucket.name, self._name, io.BytesIO(body), len(body), part_size=part_size
        )
        return stored.etag


class Download:
    """The body of one object; empty until it is started."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._response: BaseHTTPResponse | None = None

    def start(self, offset: int, length: int | None) -> None:
        client = self._bucket.client
        if length == 0:  # to the SDK a length of 0 means the rest of the object
            client.stat_object(self._bucket.name, self._name)
            return
        try:
            self._response = client.get_object(self._bucket.name, self._name, offset, length or 0)
        except S3Error as error:
            if error.code != "InvalidRange":  # an offset past the end yields nothing
                raise

    def read(self, amount: int) -> bytes:
        return self._response.read(amount) if self._response is not None else b""

    def copy(self, draft: Draft, amount: int) -> bool:
        """Copies about `amount` bytes; False at the end."""
        for _ in range(0, amount, CHUNK_BYTES):
            chunk = self.read(CHUNK_BYTES)
            if not chunk:
                return False
            draft.write([chunk])
        return True

    def close(self) -> None:
        """Drops the connection when bytes are still to come; a finished one is in the pool already."""
        if self._response is not None:
            self._response.close()
            self._response.release_conn()
