"""Presigned URLs: AWS signature version 4 in the query string.

https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html. The SDK signs the host only; a
header that is signed, too, must be sent by the client as it is here, or the store refuses the request.

A URL tells the access key. That is no secret to S3, but the last MinIO takes a body with unsigned trailers
(`x-amz-content-sha256: STREAMING-UNSIGNED-PAYLOAD-TRAILER`) for any key on the word of it alone: whoever lets
clients reach such a MinIO has a proxy in front refuse that header.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from urllib.parse import quote, urlunsplit

from minio import Minio
from minio.time import to_amz_date, utcnow

from core.errors import SettingsError
from core.settings import StorageSettings
from storage.minio_bucket import Bucket
from storage.minio_settings import public_address

MAX_SIGNED_SECONDS = 7 * 24 * 3600  # what S3 allows

_ALGORITHM = "AWS4-HMAC-SHA256"
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9._ ()+-]")


class Signer:
    """Blocking, because a region that the settings leave open is asked for."""

    def __init__(self, settings: StorageSettings, bucket: Bucket) -> None:
        self._bucket = bucket
        self._access_key = settings.access_key
        self._secret_key = settings.secret_key
        host, secure = public_address(settings)
        try:
            # Only to build addresses: which form they have depends on the host.
            self._public = Minio(host, secure=secure, region=settings.region or None)
        except ValueError as error:
            raise SettingsError(f"[storage] public_endpoint: {error}") from error

    def sign(
        self,
        method: str,
        name: str,
        seconds: int,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """A URL for one object of the bucket; `headers`, in lower case, become part of the signature."""
        region = self._bucket.client._get_region(self._bucket.name)
        moment = to_amz_date(utcnow())
        scope = f"{moment[:8]}/{region}/s3/aws4_request"
        names = ";".join(sorted({"host", *(headers or {})}))
        signed_query = {
            **(query or {}),
            "X-Amz-Algorithm": _ALGORITHM,
            "X-Amz-Credential": f"{self._access_key}/{scope}",
            "X-Amz-Date": moment,
            "X-Amz-Expires": str(max(1, min(seconds, MAX_SIGNED_SECONDS))),
            "X-Amz-SignedHeaders": names,
        }
        # It comes back encoded and in order, as the canonical request wants it.
        url = self._public._base_url.build(
            method=method,
            region=region,
            bucket_name=self._bucket.name,
            object_name=name,
            query_params=dict(signed_query),
        )
        canonical_headers = {"host": url.netloc, **(headers or {})}
        canonical = "\n".join(
            [
                method,
                url.path,
                url.query,
                *(f"{header}:{canonical_headers[header]}" for header in names.split(";")),
                "",
                names,
                "UNSIGNED-PAYLOAD",
            ]
        )
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        to_sign = "\n".join([_ALGORITHM, moment, scope, digest])
        signature = _hmac(self._signing_key(scope), to_sign).hex()
        return urlunsplit(url._replace(query=f"{url.query}&X-Amz-Signature={signature}"))

    def _signing_key(self, scope: str) -> bytes:
        key = b"AWS4" + self._secret_key.encode()
        for element in scope.split("/"):
            key = _hmac(key, element)
        return key


def length(size: int) -> dict[str, str]:
    """The header that makes a PUT good for so many bytes only.

    A client sends it by itself, and is not told to: git-lfs would be confused by it among its headers.
    """
    return {"content-length": str(size)}


def attachment(filename: str) -> str:
    """A `Content-Disposition` for a browser to save under this name; RFC 6266."""
    plain = _NOT_PLAIN.sub("_", filename)
    extended = "" if plain == filename else f"; filename*=UTF-8''{quote(filename, safe='', errors='replace')}"
    return f'attachment; filename="{plain}"{extended}'


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
