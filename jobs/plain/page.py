"""The page job on Kafka: one thread per pager, each with a consumer group of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from connectors.kafka.admin import make_topics, partition_counts
from connectors.kafka.client import KafkaSettings, member_id
from connectors.kafka.member import KafkaMember
from connectors.pagers import HttpPager, make_pager
from connectors.pagers.email import EmailPager
from connectors.pagers.http import HOSTS
from connectors.records.pages import KafkaPageRecords
from jobs.plain.config_watch import ConfigWatch, Swap
from jobs.plain.loops import CLOCK
from jobs.plain.probe import tried_pager
from jobs.plain.run import KILL_AT, Signals, Watch, kill_at, stop_of
from jobs.plain.silences import SilenceWatch
from jobs.plain.topics import Config, page_topics
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import AlertmanagerConfig, PagerConfig
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.ports import Fault, Telemetry, no_fault
from streamad.runtime.page import PageLoop

logger = logging.getLogger(__name__)

Sender = HttpPager | EmailPager
RECORDS_A_POLL = 200
RETRY_S = 1.0


def page_group(config: AlertingConfig, pager: str) -> str:
    """Return the consumer group of a pager; it also begins the ids of its transactions."""
    return f"streamad.{config.name}.page.{pager}"


def create_page_topics(config: AlertingConfig, settings: KafkaSettings) -> list[str]:
    """Create what is missing of them; return their names.

    Raises ConfigError where there is no incidents topic, which the alert stage makes.
    """
    found = partition_counts(settings)
    incidents = config.topic("incidents")
    if incidents not in found:
        msg = (
            f"there is no topic {incidents} on this cluster; the alert stage makes it: start "
            "`streamad run --alerting FILE --role alert` first, or see output.incidents"
        )
        raise ConfigError(msg)
    wanted = [one for one in page_topics(config, found[incidents]) if one.name not in found]
    make_topics(settings, wanted)
    return [topic.name for topic in wanted]


def page_loop(  # noqa: PLR0913 - all but the first three by keyword
    config: AlertingConfig,
    pager: PagerConfig,
    settings: KafkaSettings,
    *,
    member: str,
    hosts: Sequence[str] = (),
    telemetry: Telemetry | None = None,
    fault: Fault = no_fault,
    reload: ConfigWatch | None = None,
    reader: SilenceWatch | None = None,
) -> tuple[PageLoop, KafkaMember]:
    """Return the loop of a pager and its member, which is to be closed after the loop.

    reader : reads the pager's silences, and is to have its settings
    """
    kafka = KafkaMember(
        settings,
        group=page_group(config, pager.name),
        member=member,
        stage="page",
        topics=[config.topic("incidents")],
        max_poll_records=RECORDS_A_POLL,
        timeout_ms=config.delivery.transaction_timeout,
        telemetry=telemetry,
        fault=fault,
    )
    sender = make_pager(pager, hosts=hosts, wall_ms=CLOCK.wall_ms)
    loop = PageLoop(
        pager,
        sender,
        member=kafka,
        records=KafkaPageRecords(config, kafka.log, pager=pager.name, wall_ms=CLOCK.wall_ms),
        clock=CLOCK,
        telemetry=telemetry,
        fault=fault,
    )
    kafka.owner = loop
    if reload is not None:
        reload.add(loop, _Renewal(loop, pager.name, sender, reader, hosts), config)
    return loop, kafka


class _Renewal:
    """Makes a pager of new settings; see `jobs.plain.config_watch.Prepare`."""

    def __init__(
        self,
        loop: PageLoop,
        name: str,
        sender: Sender,
        reader: SilenceWatch | None,
        hosts: Sequence[str],
    ) -> None:
        self._loop, self._name, self._hosts = loop, name, hosts
        self._sender, self._reader = sender, reader

    def __call__(self, before: Config, config: Config) -> Swap:
        old, new = _pager(before, self._name), _pager(config, self._name)
        if new == old:
            return _nothing
        assert isinstance(config, AlertingConfig)  # noqa: S101 - it has a pager
        sender = tried_pager(config, new, hosts=self._hosts, wall_ms=CLOCK.wall_ms)

        def swap() -> None:
            self._loop.use(new, sender)
            self._sender.close()
            self._sender = sender
            if self._reader is not None and isinstance(new, AlertmanagerConfig):
                self._reader.use(new)

        return swap


def _pager(config: Config, name: str) -> PagerConfig:
    pagers = config.pagers if isinstance(config, AlertingConfig) else ()
    return next(pager for pager in pagers if pager.name == name)


def _nothing() -> None:
    """Swap nothing."""


def run_page(  # noqa: PLR0913 - all but the first two by keyword
    config: AlertingConfig,
    settings: KafkaSettings,
    *,
    environment: Mapping[str, str],
    pagers: Sequence[str] = (),
    telemetry: Telemetry | None = None,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
    reload: ConfigWatch | None = None,
) -> None:
    """Send pages until SIGTERM, SIGINT or ``stop``.

    reload : looks at the file, and tells the pagers of what changed there
    pagers : names of those that this process serves; none: all of them

    Every pager has its own thread, queue and back-off. One that cannot go on for a reason of its
    own ends the process, after the others have committed. Raises ConfigError where there is no such
    pager, and StreamadError where one of them cannot go on.
    """
    wanted = _wanted(config, pagers)
    stop = stop or threading.Event()
    member = member_id(environment)
    fault = kill_at(environment.get(KILL_AT, ""))
    hosts = tuple(one.strip() for one in environment.get(HOSTS, "").split(",") if one.strip())
    failures: list[BaseException] = []

    readers = {
        pager.name: SilenceWatch(config, pager, settings, hosts=hosts, telemetry=telemetry)
        for pager in wanted
        if isinstance(pager, AlertmanagerConfig) and pager.read_silences
    }

    def make(pager: PagerConfig) -> tuple[PageLoop, KafkaMember]:
        return page_loop(
            config,
            pager,
            settings,
            member=member,
            hosts=hosts,
            telemetry=telemetry,
            fault=lambda step: fault(f"page.{step}"),
            reload=reload,
            reader=readers.get(pager.name),
        )

    threads = [
        threading.Thread(
            target=_work,
            args=(pager.name, lambda pager=pager: make(pager), watch, stop, failures),
            name=f"streamad-page-{pager.name}",
            daemon=True,
        )
        for pager in wanted
    ]
    beside = [
        threading.Thread(
            target=reader.run, args=(stop,), name=f"streamad-silences-{name}", daemon=True
        )
        for name, reader in readers.items()
    ]
    if reload is not None:
        beside.append(
            threading.Thread(target=reload.run, args=(stop,), name="streamad-config", daemon=True)
        )
    with Signals(stop):
        if not _topics_ready(config, settings, telemetry, stop):
            return
        for thread in (*threads, *beside):
            thread.start()
        while any(thread.is_alive() for thread in threads):
            # Short waits: a signal is handled between two of them.
            for thread in threads:
                thread.join(0.2)
    if failures:
        raise failures[0]


def _work(
    name: str,
    make: Callable[[], tuple[PageLoop, KafkaMember]],
    watch: Watch | None,
    stop: threading.Event,
    failures: list[BaseException],
) -> None:
    kafka: KafkaMember | None = None
    try:
        loop, kafka = make()
        logger.info("pager %s is at work", name)
        loop.run(stop_of(stop, watch, f"page-{name}", loop, kafka))
    except BaseException as error:  # noqa: BLE001 - raised again by the main thread
        logger.error("pager %s stopped: %s", name, error)  # noqa: TRY400 - raised again
        failures.append(error)
        stop.set()
    finally:
        if kafka is not None:
            kafka.close()


def _wanted(config: AlertingConfig, names: Sequence[str]) -> list[PagerConfig]:
    known = {pager.name: pager for pager in config.pagers}
    missing = [name for name in names if name not in known]
    if missing or not known:
        there = ", ".join(known) or "none"
        got = ", ".join(missing) or "no pagers at all"
        msg = f"{config.name}: expected pagers of the alerting file ({there}), got {got}"
        raise ConfigError(msg)
    return [known[name] for name in dict.fromkeys(names or known)]


def _topics_ready(
    config: AlertingConfig,
    settings: KafkaSettings,
    telemetry: Telemetry | None,
    stop: threading.Event,
) -> bool:
    """Make topics, again until a broker answers; False: told to stop."""
    while not stop.is_set():
        with contextlib.suppress(SourceUnavailableError):
            create_page_topics(config, settings)
            return True
        logger.warning("no broker answers; trying again")
        if telemetry is not None:
            telemetry.count("delivery_broker_retries_total", operation="start")
        stop.wait(RETRY_S)
    return False
