"""Text from outside made fit to be shown: without credentials, without control characters, bounded.

Keys, headers and payloads are what a producer chose to send, and URLs hold what a person wrote into
a file. Whatever of them reaches a terminal, a log line, an alert, a header or a metric label goes
through here.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "***"
MAX_SHOWN_CHARS: Final = 2_000

_SECRET_NAME = re.compile(
    r"passw|secret|token|(?:api|access|account|private|routing|session|sas)[-_.]?key|credential"
    r"|authori[sz]ation|user_info|sasl_(?:oauth|plain_pass)|sasl\.jaas|signature|webhook_url",
    re.IGNORECASE,
)
# A password may hold a slash that nobody encoded; so after `user:` all up to the last @ goes.
_USERINFO = re.compile(r"(?<=://)(?:[^/\s:@'\"]{0,256}:[^\s'\"]{0,1024}|[^/\s?#'\"]{1,1024})@")
_QUERY = re.compile(r"(://[^\s?#'\"<>]{0,2048})[?#]([^\s'\"<>]+)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}")
_TOKEN = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+(?:\.[\w-]*)?")
_ASSIGNED = re.compile(r"([\w.-]{1,128})=(\"[^\"]*\"|'[^']*'|[^\s,;&)}\]]+)")

# Beyond what `str.isprintable` refuses: what turns the direction of a line round, or hides in it.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def is_secret_name(name: str) -> bool:
    """Say whether a setting or field of that name holds a secret.

    >>> is_secret_name("KAFKA_SASL_PASSWORD"), is_secret_name("KAFKA_SASL_MECHANISM")
    (True, False)
    """
    return _SECRET_NAME.search(name) is not None


def without_credentials(text: str) -> str:
    """Return text without the user info and the queries of its URLs, and without tokens.

    Examples
    --------
    >>> without_credentials("s3://key:secret@bucket/knn?versionId=7 holds no manifest.json")
    's3://***@bucket/knn?*** holds no manifest.json'
    """
    if "://" in text:
        # Each search is long where a text is made of beginnings; most hold none of the ends.
        if "@" in text:
            text = _USERINFO.sub(f"{HIDDEN}@", text)
        if "?" in text or "#" in text:
            text = _QUERY.sub(_without_query, text)
    if "=" in text:
        text = _ASSIGNED.sub(_without_value, text)
    return _TOKEN.sub(HIDDEN, _BEARER.sub(rf"\1 {HIDDEN}", text))


def safe_text(text: str, limit: int = MAX_SHOWN_CHARS) -> str:
    r"""Return text as one line that a terminal shows and does not obey, of ``limit`` characters.

    Control characters, line separators and direction overrides are written as escapes.

    Examples
    --------
    >>> safe_text("web-1\x1b[2J\nroot")
    'web-1\\x1b[2J\\nroot'
    """
    if len(text) <= limit and text.isprintable():
        return text
    # Each escape is longer than what it stands for, so no more than the limit is ever looked at.
    shown = _UNSAFE.sub(_escaped, text[: limit + 1])
    return shown if len(shown) <= limit else shown[: max(limit - 3, 0)] + "..."[:limit]


def safe_lines(text: str) -> str:
    """Return text of several lines, each of them safe."""
    return "\n".join(safe_text(line, len(line) * 10) for line in text.split("\n"))


def safe_json(line: str) -> str:
    r"""Return JSON text of the same value, with what a terminal would obey as escapes of JSON.

    >>> safe_json('{"key":"a\x9b2J"}')
    '{"key":"a\\u009b2J"}'
    """
    return line if line.isprintable() else _UNSAFE.sub(_json_escaped, line)


def _without_query(match: re.Match[str]) -> str:
    # What ends the sentence around a URL is no part of it.
    rest = match[2]
    return f"{match[1]}?{HIDDEN}{rest[len(rest.rstrip('):;,.')) :]}"


def _without_value(match: re.Match[str]) -> str:
    return f"{match[1]}={HIDDEN}" if is_secret_name(match[1]) else match[0]


def _escaped(match: re.Match[str]) -> str:
    char = match[0]
    code = ord(char)
    if char in _SHORT:
        return _SHORT[char]
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escaped(match: re.Match[str]) -> str:
    # Beyond the first plane JSON writes two halves.
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
