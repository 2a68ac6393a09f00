"""Signed PUTs: bytes that clients put into a bucket themselves, and that this server makes visible.

A plain presigned PUT would not do. Its URL outlives the upload, and whoever has it can change the object
after it was verified: MinIO honours headers beside the signed ones, and `x-amz-copy-source` puts another
object there. So the client uploads the only part of a multipart upload instead. A part can do no harm,
completing it compares the sha256 once more, and then the upload and all its URLs are over.
"""

import base64
import hashlib

from minio.datatypes import Object
from minio.error import S3Error

from storage.minio_bucket import Bucket, code_of
from storage.minio_parts import Parts
from storage.minio_signing import Signer, length
from storage.protocol import ObjectNotFound, PartsNotFound, PartsRejected, SignedPut

CHECKSUM_HEADER = "x-amz-checksum-sha256"


class Puts:
    """Blocking, each call in a thread."""

    def __init__(self, bucket: Bucket, signer: Signer) -> None:
        self._bucket = bucket
        self._signer = signer

    def begin(self, name: str, seconds: int, sha256: str, size: int, content_type: str) -> SignedPut:
        parts_id = Parts(self._bucket, name).begin(summed=True)
        headers = {"content-type": content_type, CHECKSUM_HEADER: _base64(sha256)}
        query = {"partNumber": "1", "uploadId": parts_id}
        signed = self._signer.sign("PUT", name, seconds, query=query, headers={**headers, **length(size)})
        return SignedPut(signed, headers)

    def finish(self, name: str, sha256: str) -> Object:
        """What is there under `name` now, and is proved to have this sha256. Raises `ObjectNotFound`."""
        if (found := self._proved(name, sha256)) is not None:
            return found
        parts = Parts(self._bucket, name)
        ids = parts.ids()
        if any(_completed(parts, parts_id, sha256) for parts_id in ids):
            for parts_id in ids:
                parts.abort(parts_id)
        # Also when nothing was: somebody else may have done it meanwhile.
        if (found := self._proved(name, sha256)) is None:
            raise ObjectNotFound("nothing with this sha256 was put there")
        return found

    def _proved(self, name: str, sha256: str) -> Object | None:
        try:
            found = stat_summed(self._bucket, name)
        except S3Error as error:
            if code_of(error) != "NoSuchKey":
                raise
            return None
        digest = bytes.fromhex(sha256)
        # The checksum of an object of parts is one of their checksums, and says of how many.
        of_one_part = base64.b64encode(hashlib.sha256(digest).digest()).decode() + "-1"
        return found if (found.metadata or {}).get(CHECKSUM_HEADER) == of_one_part else None


def stat_summed(bucket: Bucket, name: str) -> Object:
    """What the store says of an object, `CHECKSUM_HEADER` in `metadata` included where it has one."""
    return bucket.client.stat_object(bucket.name, name, extra_headers={"x-amz-checksum-mode": "ENABLED"})


def whole_sha256(found: Object) -> str | None:
    """The sha256 in hex of a whole object, if the store computed that."""
    text = (found.metadata or {}).get(CHECKSUM_HEADER) or ""
    try:
        digest = base64.b64decode(text, validate=True)
    except ValueError:  # as of objects of parts
        return None
    return digest.hex() if len(digest) == hashlib.sha256().digest_size else None


def _completed(parts: Parts, parts_id: str, sha256: str) -> bool:
    try:
        for stored in parts.list(parts_id):
            if stored.sha256 == _base64(sha256):
                parts.complete(parts_id, [stored.part], sha256=stored.sha256)
                return True
    except (PartsNotFound, PartsRejected):  # gone, or exchanged since it was listed
        pass
    return False


def _base64(sha256: str) -> str:
    return base64.b64encode(bytes.fromhex(sha256)).decode()
