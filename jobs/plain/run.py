"""Run a pipeline: its two roles in one process, or one of them, until told to stop."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import FrameType
from typing import Literal, Protocol

from connectors.kafka.client import KafkaSettings, member_id
from connectors.kafka.member import KafkaMember
from connectors.records.wire import Frames
from jobs.plain.config_watch import ConfigWatch
from jobs.plain.frames import frames_of
from jobs.plain.loops import alert_loop, detect_loop, rekey_loop
from jobs.plain.preflight import require
from jobs.plain.topic_watch import TopicWatch
from jobs.plain.topics import Config, create_topics
from streamad.alerting.config import AlertingConfig
from streamad.errors import ConfigError, SourceUnavailableError
from streamad.ports import Fault, Source, Telemetry, no_fault

logger = logging.getLogger(__name__)

Role = Literal["both", "detect", "alert", "rekey", "page"]

GRACE_S = 20.0
"""Without a broker nothing can be committed: after this the process ends as is, and recovers."""

KILL_AT = "STREAMAD_TEST_KILL_AT"


class Loop(Protocol):
    """What a role runs."""

    @property
    def sources(self) -> Sequence[Source]:
        """Return the partitions at work."""
        ...

    @property
    def settled(self) -> bool:
        """Say whether every partition that came is at work."""
        ...

    def n_kept(self, source: Source) -> int:
        """Return how many messages were polled and wait for their turn."""
        ...

    def run(self, stop: Callable[[], bool]) -> None:
        """Work until ``stop``."""
        ...

    def renewed(self, topic: str) -> None:
        """Note, from another thread, that a topic was deleted and made anew."""
        ...


class Looks(Protocol):
    """Looks at something beside the roles."""

    def run(self, stop: threading.Event) -> None:
        """Look until ``stop``; never raises."""
        ...


class Watch(Protocol):
    """Told once a turn, in the loop's thread, how a role is."""

    def turned(self, role: str, loop: Loop, member: KafkaMember) -> None:
        """Note that the loop turned."""
        ...

    def lost(self, topics: Sequence[str]) -> None:
        """Note, from another thread, which topics are gone; none: all are there."""
        ...


def run(  # noqa: PLR0913 - all but the first two by keyword
    config: Config,
    settings: KafkaSettings,
    *,
    role: Role = "both",
    environment: Mapping[str, str],
    telemetry: Telemetry | None = None,
    watch: Watch | None = None,
    stop: threading.Event | None = None,
    reload: ConfigWatch | None = None,
) -> None:
    """Run the roles of a pipeline in this process until SIGTERM, SIGINT or ``stop``.

    watch : is told once a turn how each role is
    reload : looks at the file, and tells the roles of what changed there

    What has been read is committed and saved before it returns. Raises StreamadError where a role
    cannot go on; the other one is stopped in order first.
    """
    wanted = roles_of(config, role)
    stop = stop or threading.Event()
    member = member_id(environment)
    fault = kill_at(environment.get(KILL_AT, ""))
    failures: list[BaseException] = []
    loops: list[Loop] = []
    looks: list[Looks] = [
        TopicWatch(config, settings, loops=loops, lost=watch.lost if watch else None)
    ]
    looks += [] if reload is None else [reload]
    with Signals(stop):
        ready = partial(frames_of, config, wanted, environment)
        frames = _ready_to_start(config, settings, ready, telemetry, stop)
        if frames is None:
            return
        makers = _makers(frames)
        threads = [
            threading.Thread(
                target=_work,
                args=(
                    name,
                    makers[name],
                    config,
                    settings,
                    member,
                    telemetry,
                    watch,
                    fault,
                    stop,
                    failures,
                    loops,
                ),
                kwargs={"reload": reload},
                name=f"streamad-{name}",
                daemon=True,
            )
            for name in wanted
        ]
        for look in looks:
            name = f"streamad-{type(look).__name__}"
            threading.Thread(target=look.run, args=(stop,), name=name, daemon=True).start()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            # Short waits: a signal is handled between two of them.
            for thread in threads:
                thread.join(0.2)
    if failures:
        raise failures[0]


def roles_of(config: Config, role: Role) -> list[str]:
    """Return the roles that run; raises ConfigError where the file has no such role."""
    if isinstance(config, AlertingConfig):
        if role not in ("both", "alert"):
            msg = f"--role {role}: an alerting file has the roles alert and page"
            raise ConfigError(msg)
        return ["alert"]
    if role == "page":
        msg = "--role page: pagers are settings of an alerting file; give it with --alerting"
        raise ConfigError(msg)
    if role == "rekey" and not config.input.repartition:
        msg = "--role rekey: this pipeline has no input.repartition, so there is nothing to re-key"
        raise ConfigError(msg)
    wanted: list[str] = ["detect", "alert"] if role == "both" else [role]
    if config.input.repartition and role in ("both", "detect"):
        wanted.insert(0, "rekey")
    return wanted


def _ready_to_start(
    config: Config,
    settings: KafkaSettings,
    frames: Callable[[], Frames],
    telemetry: Telemetry | None,
    stop: threading.Event,
) -> Frames | None:
    """Look at the cluster and make topics, again until all answer; None: told to stop.

    frames : asks the schema registry, if the job has one; its answer is returned

    Raises ConfigError where something is wrong there.
    """
    for attempt in range(1_000_000):
        try:
            require(config, settings)
            create_topics(config, settings)
            made = frames()
        except SourceUnavailableError as error:
            logger.warning("not started yet, and tried again: %s", error)
            if telemetry is not None:
                telemetry.count("delivery_broker_retries_total", operation="start")
            if stop.wait(min(10.0, 0.5 * 2 ** min(attempt, 6))):
                return None
        else:
            return None if stop.is_set() else made
    raise AssertionError


Maker = Callable[..., tuple[Loop, KafkaMember]]


def _makers(frames: Frames) -> Mapping[str, Maker]:
    return {
        "rekey": rekey_loop,
        "detect": partial(detect_loop, frames=frames),
        "alert": partial(alert_loop, frames=frames),
    }


def _work(  # noqa: PLR0913, PLR0917 - the arguments of a thread
    role: str,
    make: Maker,
    config: Config,
    settings: KafkaSettings,
    member: str,
    telemetry: Telemetry | None,
    watch: Watch | None,
    fault: Fault,
    stop: threading.Event,
    failures: list[BaseException],
    loops: list[Loop],
    *,
    reload: ConfigWatch | None,
) -> None:
    config = config if reload is None else reload.config
    kafka: KafkaMember | None = None

    def at(step: str) -> None:
        fault(f"{role}.{step}")

    try:
        loop: Loop
        loop, kafka = make(
            config, settings, member=member, telemetry=telemetry, fault=at, reload=reload
        )
        loops.append(loop)
        logger.info("%s of %s runs as %s", role, config.name, member)
        loop.run(stop_of(stop, watch, role, loop, kafka))
    except BaseException as error:  # noqa: BLE001 - raised again by the main thread
        logger.error("%s stopped: %s", role, error)  # noqa: TRY400 - raised again, with its trace
        failures.append(error)
        stop.set()
    finally:
        if kafka is not None:
            kafka.close()


def stop_of(
    stop: threading.Event, watch: Watch | None, role: str, loop: Loop, member: KafkaMember
) -> Callable[[], bool]:
    """Return what a loop asks before each turn."""

    def stopped() -> bool:
        if watch is not None:
            watch.turned(role, loop, member)
        return stop.is_set()

    return stopped


class Signals:
    """Set ``stop`` on SIGTERM and SIGINT; end the process if it then takes too long."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._old: dict[int, object] = {}
        self._timer: threading.Timer | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._old[number] = signal.signal(number, self._handle)

    def __exit__(self, *exc: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._old.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._stop.set()
        if self._timer is None:
            self._timer = threading.Timer(GRACE_S, _end_now)
            self._timer.daemon = True
            self._timer.start()


def _end_now() -> None:
    logger.error("could not commit within %g s: ending as is; the next start recovers", GRACE_S)
    os._exit(os.EX_TEMPFAIL)


def kill_at(where: str) -> Fault:
    """Return a fault that kills the process at the n-th passing of a step, for tests.

    where : ``role.step:n``, such as ``detect.after_produce:3``; empty: never
    """
    if not where:
        return no_fault
    wanted, _, number = where.partition(":")
    left = [int(number or 1)]

    def fault(step: str) -> None:
        if step == wanted:
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return fault
