"""E-mail over SMTP: plain text, one thread per incident.

``Message-ID`` is the same at every attempt. Mail servers deliver at least once; most mail programs
show messages of one id once.
"""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import time
from collections.abc import Sequence
from email.message import EmailMessage
from email.utils import formatdate
from typing import Final

from connectors.pagers.base import SLOW_S, lines_of, state_of, title_of
from connectors.pagers.http import cut_at, require_host
from connectors.pagers.secrets import SecretError, Secrets
from streamad.alerting.pagers import EmailConfig
from streamad.incidents import Incident
from streamad.paging.changes import Outcome, Page, Told
from streamad.shown import safe_text

MAX_SUBJECT_CHARS, MAX_BODY_CHARS = 200, 20_000
_TLS_PORT: Final = 465


class EmailPager:
    """Send pages as messages; see the module."""

    remind_every_s = 0.0

    def __init__(self, config: EmailConfig, *, hosts: Sequence[str] = ()) -> None:
        self._config, self._secrets, self._hosts = config, Secrets(config), tuple(hosts)
        self.updates = config.updates

    def send(self, page: Page) -> Outcome:
        """Make one attempt; never raises."""
        if page.change == "acknowledge" and not self.updates:
            return Outcome(result="ok")
        message = message_of(page, self._config)
        try:
            self._deliver(message)
        except SecretError as error:
            return Outcome(result="retry", detail=str(error), wait_s=SLOW_S)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            final = all(500 <= code < 600 for code in codes)
            detail = f"all recipients are refused: {sorted(codes)}"
            return Outcome(result="never" if final else "retry", detail=detail)
        except smtplib.SMTPResponseException as error:
            said = self._secrets.hide(safe_text(str(error.smtp_error), 200))
            detail = f"SMTP status {error.smtp_code}: {said}"
            login = isinstance(error, smtplib.SMTPAuthenticationError)
            # 552 and 554 refuse this message; what else is refused, a person can repair.
            final = error.smtp_code in {552, 554} and not login
            slow_s = SLOW_S if error.smtp_code >= 500 else 0.0
            return Outcome(result="never" if final else "retry", detail=detail, wait_s=slow_s)
        except (smtplib.SMTPException, OSError, ValueError) as error:
            said = self._secrets.hide(safe_text(str(error), 200))
            detail = f"{self._config.host}:{self._config.port}: {type(error).__name__}: {said}"
            return Outcome(result="retry", detail=detail)
        return Outcome(result="ok", reference=page.reference or str(message["Message-ID"]))

    def probe(self, page: Page) -> None:
        """Do all of an attempt but send it; raises SecretError, OSError and ValueError."""
        message_of(page, self._config)
        require_host(self._config.host, self._hosts)
        if self._config.tls:
            ssl.create_default_context(cafile=self._config.ca_file)
        if self._config.username:
            self._secrets.get("password")

    def remind(self, told: Sequence[Told]) -> Outcome:
        """Send nothing: a message stays."""
        del told
        return Outcome(result="ok")

    def close(self) -> None:
        """Close nothing: each message has a connection of its own."""

    def _deliver(self, message: EmailMessage) -> None:
        config, timeout_s = self._config, self._config.timeout / 1000
        require_host(config.host, self._hosts)
        context = ssl.create_default_context(cafile=config.ca_file) if config.tls else None
        deadline_s = time.monotonic() + timeout_s
        if context is not None and config.port == _TLS_PORT:
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                config.host, config.port, timeout=timeout_s, context=context
            )
        else:
            server = smtplib.SMTP(config.host, config.port, timeout=timeout_s)
        sock = server.sock
        assert isinstance(sock, socket.socket)  # noqa: S101 - it is connected
        with contextlib.closing(server), cut_at(sock, deadline_s):
            if context is not None and config.port != _TLS_PORT:
                server.starttls(context=context)
            if config.username:
                server.login(config.username, self._secrets.get("password"))
            server.send_message(message)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                server.quit()


def message_of(page: Page, config: EmailConfig) -> EmailMessage:
    """Return a page as a message; text of the input ends no header: it is one line."""
    message = EmailMessage()
    domain = config.sender.partition("@")[2]
    message["From"] = config.sender
    message["To"] = ", ".join(config.to)
    message["Subject"] = f"{state_of(page)}: {title_of(page)}"[:MAX_SUBJECT_CHARS]
    message["Date"] = formatdate(localtime=False)
    message["Message-ID"] = f"<{page.key}@{domain}>"
    message["Auto-Submitted"] = "auto-generated"
    if isinstance(page.record, Incident):
        message["X-Streamad-Incident"] = page.record.id
        if page.reference:
            message["In-Reply-To"] = page.reference
            message["References"] = page.reference
    message.set_content("\n".join(lines_of(page))[:MAX_BODY_CHARS])
    return message
