"""How to reach a schema registry: ``SCHEMA_REGISTRY_*``, with secrets that never show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from connectors.environment import value_of
from streamad.alerting.pagers import checked_url, is_loopback
from streamad.errors import ConfigError

URL: Final = "SCHEMA_REGISTRY_URL"
USER_INFO: Final = "SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO"
TOKEN: Final = "SCHEMA_REGISTRY_BEARER_TOKEN"  # noqa: S105 - a variable's name
ALLOW_HTTP: Final = "SCHEMA_REGISTRY_ALLOW_HTTP"
_FILES: Final[Mapping[str, str]] = {
    "SCHEMA_REGISTRY_SSL_CAFILE": "ca_file",
    "SCHEMA_REGISTRY_SSL_CERTFILE": "cert_file",
    "SCHEMA_REGISTRY_SSL_KEYFILE": "key_file",
}
_TRUE: Final = ("1", "true", "yes")
MAX_URLS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrySettings:
    """Where a registry is and how to log in. ``repr`` shows no secret, so neither does a log.

    urls : of its instances, the next is asked where one does not answer; user_info :
    ``user:password`` of basic authentication; timeout : of one request, in ms
    """

    urls: tuple[str, ...]
    user_info: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    allow_http: bool = False
    timeout: int = 10_000
    name: str = "schema-registry"

    def __post_init__(self) -> None:
        if not 0 < len(self.urls) <= MAX_URLS:
            msg = (
                f"{URL}: expected 1 to {MAX_URLS} URLs such as https://registry:8081, "
                f"got {len(self.urls)}"
            )
            raise ConfigError(msg)
        for url in self.urls:
            try:
                checked_url(url)
            except ValueError as error:
                told = str(error).partition(";")[0]
                msg = f"{URL}: {told}; credentials go into {USER_INFO} or {TOKEN}"
                raise ConfigError(msg) from None
        self._require_credentials()
        plain = [url for url in self.urls if url.startswith("http:") and not is_loopback(url)]
        if (self.user_info or self.token) and plain and not self.allow_http:
            msg = (
                f"{URL}: credentials would be sent over plain HTTP; use https://, or set "
                f"{ALLOW_HTTP}=true inside a network that you trust"
            )
            raise ConfigError(msg)

    def _require_credentials(self) -> None:
        """Raise ConfigError for credentials that cannot be sent; it shows nothing of them."""
        if self.user_info and self.token:
            msg = f"{USER_INFO} and {TOKEN}: expected one of them, got both"
            raise ConfigError(msg)
        if self.user_info and ":" not in self.user_info:
            msg = f"{USER_INFO}: expected user:password, got a text without a colon"
            raise ConfigError(msg)
        if self.token and not self.token.isascii():
            msg = f"{TOKEN}: expected ASCII text, got other characters in it"
            raise ConfigError(msg)
        for name, value in ((USER_INFO, self.user_info), (TOKEN, self.token)):
            if not value.isprintable():
                msg = f"{name}: expected one line of text, got control characters in it"
                raise ConfigError(msg)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> RegistrySettings:
        """Read ``SCHEMA_REGISTRY_*``; ``NAME_FILE`` names a file. Raises ConfigError."""
        text = value_of(URL, environment) or ""
        urls = tuple(one.strip().rstrip("/") for one in text.split(",") if one.strip())
        if not urls:
            msg = (
                f"output.format: confluent needs a schema registry; set {URL}, such as "
                "https://registry:8081, or use output.format: json"
            )
            raise ConfigError(msg)
        files = {attribute: environment.get(name) or None for name, attribute in _FILES.items()}
        return cls(
            urls=urls,
            user_info=value_of(USER_INFO, environment) or "",
            token=value_of(TOKEN, environment) or "",
            allow_http=environment.get(ALLOW_HTTP, "").lower() in _TRUE,
            ca_file=files["ca_file"],
            cert_file=files["cert_file"],
            key_file=files["key_file"],
        )
