"""Bring silences that people make in Alertmanager to the feedback topic, in a thread of its own.

Nothing waits for it: a replica that hangs or a broker that is away delays no page.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

from connectors.feedback import give
from connectors.kafka.client import KafkaSettings
from connectors.kafka.log import KafkaLog
from connectors.pagers.alertmanager_silences import AlertmanagerSilences, Taken
from connectors.pagers.http import Sender
from connectors.pagers.secrets import SecretError, Secrets
from jobs.desk.reading import records
from jobs.plain.loops import CLOCK
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import AlertmanagerConfig
from streamad.errors import StreamadError
from streamad.incidents import Feedback, Silence
from streamad.paging.answers import MAX_EXPECTED_MS
from streamad.ports import NullTelemetry, Telemetry

logger = logging.getLogger(__name__)


class SilenceWatch:
    """Read the silences of one Alertmanager again and again; write what is new.

    Several processes may do so: a record that comes twice changes nothing.
    """

    def __init__(
        self,
        config: AlertingConfig,
        pager: AlertmanagerConfig,
        settings: KafkaSettings,
        *,
        hosts: Sequence[str] = (),
        telemetry: Telemetry | None = None,
    ) -> None:
        self._config, self._hosts = config, tuple(hosts)
        self._topic, self._name = config.topic("feedback"), pager.name
        self._group = f"streamad.{config.name}.page.{pager.name}.silences"
        self._settings, self._telemetry = settings, telemetry or NullTelemetry()
        self._n_left_out = 0
        self._failure = ""
        self._next: AlertmanagerConfig | None = None
        self._read_from(pager)

    def _read_from(self, pager: AlertmanagerConfig) -> None:
        secrets = Secrets(pager)
        self._secrets = secrets
        self._silences = AlertmanagerSilences(pager, secrets, name=self._config.name)
        self._sender = Sender(pager, hosts=self._hosts)
        self._every_s = (pager.read_silences or 0) / 1000
        self._restored = False

    def use(self, pager: AlertmanagerConfig) -> None:
        """Read by other settings from the next time on; from any thread."""
        self._next = pager

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop``; never raises."""
        while not stop.is_set():
            if (pager := self._next) is not None:
                self._next = None
                self._sender.close()
                self._read_from(pager)
            try:
                self.turn()
            except (StreamadError, SecretError) as error:
                self._failed(str(error))
            except Exception as error:
                # Of no use to the pages, so no reason to end the process that sends them.
                logger.exception("pager %s: reading silences failed", self._name)
                self._failed(type(error).__name__)
            stop.wait(self._every_s)
        self._sender.close()

    def turn(self) -> list[Taken]:
        """Read once; return the records that were written.

        Raises SecretError, and StreamadError where Kafka does not answer.
        """
        if not self._restored:
            self._restore()
        silences = self._silences
        answers = self._sender.send_all(silences.requests())
        found, complete, failure = silences.silences(answers)
        alerts = []
        if silences.asks_for_alerts(found):
            alerts = self._sender.send_all(silences.alert_requests())
        taken = silences.take(found, alerts, complete=complete, now_ms=CLOCK.wall_ms())
        if taken:
            give(self._settings, self._topic, taken)
            silences.keep(taken)
        if failure:
            self._failed(failure)
        else:
            self._failure = ""
        self._report(taken)
        return taken

    def _restore(self) -> None:
        """Note what earlier processes have written."""
        log = KafkaLog(self._settings, group=self._group)
        try:
            since_ms = CLOCK.wall_ms() - MAX_EXPECTED_MS
            self._silences.keep(records(log, self._topic, (Feedback, Silence), since_ms=since_ms))
        finally:
            log.close()
        self._restored = True

    def _failed(self, why: str) -> None:
        self._telemetry.count("page_silences_total", pager=self._name, result="failed")
        if why != self._failure:
            self._failure = why
            logger.warning(
                "pager %s: silences of Alertmanager cannot be read, and are tried every %g s: %s",
                self._name, self._every_s, self._secrets.hide(why),
            )  # fmt: skip

    def _report(self, taken: Sequence[Taken]) -> None:
        now_ms = CLOCK.wall_ms()
        ended = sum(
            one.withdraws(now_ms) if isinstance(one, Feedback) else one.ends_ms <= now_ms
            for one in taken
        )
        new_left_out = max(self._silences.n_left_out - self._n_left_out, 0)
        self._n_left_out = self._silences.n_left_out
        for result, n in (
            ("taken", len(taken) - ended), ("ended", ended), ("left_out", new_left_out)
        ):  # fmt: skip
            self._telemetry.count("page_silences_total", n, pager=self._name, result=result)
        for one in taken:
            what = one.name if isinstance(one, Silence) else f"incident {one.subject} is expected"
            logger.info("pager %s: silence of %s: %s", self._name, one.by, what)
