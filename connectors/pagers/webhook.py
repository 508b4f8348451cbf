"""A signed webhook, by the Standard Webhooks convention: https://www.standardwebhooks.com.

The receiver computes HMAC-SHA256 over ``<webhook-id>.<webhook-timestamp>.<body>`` and compares it
with ``webhook-signature``. ``webhook-id`` is the same at every attempt: a receiver that keeps the
ids it has seen gets each change exactly once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import Final

import orjson

from connectors.pagers.base import Adapter, Request, links_of
from connectors.pagers.secrets import SecretError, Secrets
from streamad.alerting.pagers import WebhookConfig, checked_url
from streamad.incidents import Incident
from streamad.paging.changes import Page

PREFIX: Final = "whsec_"
LEAST_SECRET_BYTES: Final = 16


def sign(secret: str, *, message_id: str, timestamp: str, body: bytes) -> str:
    """Return the value of ``webhook-signature``.

    Raises ValueError where the secret is too short, or ``whsec_`` is not followed by base64.

    Examples
    --------
    >>> sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", message_id="msg_p5jXN8AQM9LWM0D4loKWxJek",
    ...      timestamp="1614265330", body=b'{"test": 2432232314}')
    'v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE='
    """
    if secret.startswith(PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except binascii.Error:
            msg = f"expected base64 after {PREFIX}"
            raise ValueError(msg) from None
    else:
        key = secret.encode()
    if len(key) < LEAST_SECRET_BYTES:
        msg = f"expected a secret of {LEAST_SECRET_BYTES} bytes or more, got {len(key)}"
        raise ValueError(msg)
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


class Webhook(Adapter):
    """Records as they are, signed; see the module."""

    def __init__(self, config: WebhookConfig, secrets: Secrets) -> None:
        self._config, self._secrets = config, secrets
        self.updates = config.updates

    def requests(self, page: Page, *, now_ms: int) -> list[Request]:
        """Return the record as JSON: ``{type, id, change, data}``."""
        record = page.record
        data = orjson.loads(orjson.dumps(record))
        if isinstance(record, Incident):
            data["links"] = links_of(record)
            for member in data["members"]:
                # Those of the incident are checked; members repeat them.
                member.pop("links", None)
        kind = "incident" if isinstance(record, Incident) else "digest"
        body = orjson.dumps(
            {"type": f"{kind}.{page.change}", "id": page.key, "name": record.name, "data": data}
        )
        timestamp = str(now_ms // 1000)
        try:
            signature = sign(
                self._secrets.get("secret"), message_id=page.key, timestamp=timestamp, body=body
            )
        except ValueError as error:
            msg = f"secret: {error}"
            raise SecretError(msg) from None
        headers = {
            "Content-Type": "application/json",
            "webhook-id": page.key,
            "webhook-timestamp": timestamp,
            "webhook-signature": signature,
        }
        return [Request(url=self._url(), headers=headers, body=body)]

    def _url(self) -> str:
        if self._config.url is not None:
            return self._config.url
        try:
            return checked_url(self._secrets.get("url"))
        except ValueError as error:
            msg = f"url_file: {error}"
            raise SecretError(msg) from None
