"""The page job on Kafka: one thread per pager, each with a consumer group of its own."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from connectors.kafka.admin import make_topics, partition_counts
from connectors.kafka.client import KafkaSettings, member_id
from connectors.kafka.member import KafkaMember
from connectors.pagers import make_pager
from connectors.pagers.http import HOSTS
from connectors.records.pages import KafkaPageRecords
from jobs.plain.loops import CLOCK
from jobs.plain.run import KILL_AT, Signals, Watch, kill_at, stop_of
from jobs.plain.silences import SilenceWatch
from jobs.plain.topics import page_topics
from streamad.alerting.config import AlertingConfig
from streamad.alerting.pagers import AlertmanagerConfig, PagerConfig
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.ports import Fault, Telemetry, no_fault
from streamad.runtime.page import PageLoop

logger = logging.getLogger(__name__)

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
) -> tuple[PageLoop, KafkaMember]:
    """Return the loop of a pager and its member, which is to be closed after the loop."""
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
    loop = PageLoop(
        pager,
        make_pager(pager, hosts=hosts, wall_ms=CLOCK.wall_ms),
        member=kafka,
        records=KafkaPageRecords(config, kafka.log, pager=pager.name, wall_ms=CLOCK.wall_ms),
        clock=CLOCK,
        telemetry=telemetry,
        fault=fault,
    )
    kafka.owner = loop
    return loop, kafka


def run_page(  # noqa: PLR0913 - all but the first two by keyword
    config: AlertingConfig,
    settings: KafkaSettings,
    *,
    environment: Mapping[str, str],
    pagers: Sequence[str] = (),
    telemetry: Telemetry | None = None,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Send pages until SIGTERM, SIGINT or ``stop``.

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

    def make(pager: PagerConfig) -> tuple[PageLoop, KafkaMember]:
        return page_loop(
            config,
            pager,
            settings,
            member=member,
            hosts=hosts,
            telemetry=telemetry,
            fault=lambda step: fault(f"page.{step}"),
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
    readers = [
        threading.Thread(
            target=SilenceWatch(config, pager, settings, hosts=hosts, telemetry=telemetry).run,
            args=(stop,),
            name=f"streamad-silences-{pager.name}",
            daemon=True,
        )
        for pager in wanted
        if isinstance(pager, AlertmanagerConfig) and pager.read_silences
    ]
    with Signals(stop):
        if not _topics_ready(config, settings, telemetry, stop):
            return
        for thread in (*threads, *readers):
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
