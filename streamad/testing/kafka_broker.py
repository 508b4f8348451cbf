"""A real one-node Kafka for tests, that can be killed and comes back with its data.

Doubles cannot show what a rebalance, a fenced producer or a torn log does; this runs the broker
itself, from its jars (``make kafka-jars``), on free loopback ports::

    with KafkaBroker(libs=Path(".cache/kafka/libs")) as broker:
        broker.create_topic("signals", partitions=2)
        broker.kill()  # SIGKILL, as the kernel does when memory runs out
        broker.start()  # same ports, same data

``python -m streamad.testing.kafka_broker up`` starts one that stays (``make kafka-up``).
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from streamad.errors import StreamadError
from streamad.testing.processes import free_ports, kill_with_me, port_is_free

DEFAULT_LIBS = Path(".cache/kafka/libs")
"""Where ``make kafka-jars`` puts the jars, from the root of the repository."""

_START_TIMEOUT_S = 90.0  # 5-8 s on an idle machine; others may be using this one
_STOP_TIMEOUT_S = 30.0
_LOG_TAIL_LINES = 25
_MIB = 1024 * 1024


class BrokerError(StreamadError):
    """The test broker cannot be run; the message says what is missing or how it died."""


def why_no_broker(libs: Path = DEFAULT_LIBS) -> str | None:
    """Say what a broker lacks on this machine, or None where it can be started.

    Parameters
    ----------
    libs : Path
        The folder with Kafka's jars.
    """
    if shutil.which("java") is None:
        return "no `java` on the PATH; install a Java runtime (17 or later)"
    if not any(libs.glob("kafka_2.13-*.jar")):
        return f"no Kafka jars in {libs}; fetch them with `make kafka-jars` (needs Maven)"
    return None


class KafkaBroker:
    """A one-node KRaft broker on the loopback interface.

    The ports and the data directory are chosen once, so that a broker which was stopped or killed
    comes back under the same address with everything that was acknowledged. The process dies with
    the one that started it, even if that is killed.

    Parameters
    ----------
    libs : Path
        The folder with Kafka's jars.
    data_dir : Path, optional
        Where data and log are kept; without it a temporary folder, deleted by `close`.
    port : int
        The port clients use; 0 takes a free one.
    message_max_bytes : int
        The largest record batch the broker takes.
    heap_mb : int
        The memory of the JVM.
    properties : Mapping[str, str], optional
        Broker properties that replace or add to those of `server_properties`.
    """

    def __init__(
        self,
        *,
        libs: Path = DEFAULT_LIBS,
        data_dir: Path | None = None,
        port: int = 0,
        message_max_bytes: int = _MIB,
        heap_mb: int = 512,
        properties: Mapping[str, str] | None = None,
    ) -> None:
        missing = why_no_broker(libs)
        if missing:
            raise BrokerError(missing)
        self._temporary = data_dir is None
        self.data_dir = data_dir or Path(tempfile.mkdtemp(prefix="streamad-kafka-"))
        self.data_dir.mkdir(parents=True, exist_ok=True)
        free, self._controller_port = free_ports(2)
        self.port = port or free
        self._classpath = f"{libs.resolve()}/*"
        self._heap_mb = heap_mb
        self._properties = server_properties(
            data_dir=self.data_dir,
            port=self.port,
            controller_port=self._controller_port,
            message_max_bytes=message_max_bytes,
        ) | dict(properties or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._watchdog: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap(self) -> str:
        """The address clients connect to, ``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """The file with everything the broker said, over all its lives."""
        return self.data_dir / "broker.log"

    @property
    def pid(self) -> int | None:
        """The process id while the broker runs, else None."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, *, timeout_s: float = _START_TIMEOUT_S, survive: bool = False) -> Self:
        """Start the broker and wait until it answers; does nothing while it runs.

        Parameters
        ----------
        timeout_s : float
            How long to wait for the first answer before giving up.
        survive : bool
            Let the broker go on when this process ends.

        Raises
        ------
        BrokerError
            The broker died or did not answer in time; the message ends with its last log lines.
        """
        if self.pid is not None:
            return self
        config = self._write_config()
        with self.log_path.open("ab") as log:
            self._format(config, log)
            self._process = self._java(
                "kafka.Kafka", str(config), log=log, options=[f"-Xmx{self._heap_mb}m"]
            )
        if not survive:
            self._watchdog = kill_with_me(self._process.pid)
        try:
            self._await_answer(self._process, timeout_s)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Shut the broker down in order; what hangs is killed. Data and ports stay."""
        process = self._release()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def kill(self) -> None:
        """Kill the broker with SIGKILL, as a crash does. Data and ports stay."""
        process = self._release()
        if process is not None:
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Stop in order and start again under the same address."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Stop the broker and delete its data if the folder was a temporary one."""
        self.stop()
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def create_topic(
        self, name: str, *, partitions: int = 1, configs: Mapping[str, str] | None = None
    ) -> None:
        """Create a topic and wait until every partition has a leader.

        Parameters
        ----------
        name : str
            The topic; it must not exist.
        partitions : int
            How many partitions it has.
        configs : Mapping[str, str], optional
            Topic settings, such as ``cleanup.policy``.
        """
        options = {
            "num_partitions": partitions,
            "replication_factor": 1,
            "configs": dict(configs or {}),
        }
        with self._admin() as admin:
            admin.create_topics({name: options}, wait_for_metadata=True)

    def log_tail(self) -> str:
        """Return the last lines the broker wrote."""
        if not self.log_path.exists():
            return "(no log)"
        lines = self.log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _write_config(self) -> Path:
        path = self.data_dir / "server.properties"
        path.write_text("".join(f"{key}={value}\n" for key, value in self._properties.items()))
        return path

    def _format(self, config: Path, log: IO[bytes]) -> None:
        if (Path(self._properties["log.dirs"]) / "meta.properties").exists():
            return
        arguments = ["format", "-t", _cluster_id(), "-c", str(config), "--standalone"]
        if self._java("kafka.tools.StorageTool", *arguments, log=log).wait() != 0:
            msg = f"Kafka's storage cannot be formatted; the log ends:\n{self.log_tail()}"
            raise BrokerError(msg)

    def _java(
        self, main: str, *arguments: str, log: IO[bytes], options: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        # The quick compiler only and one collector thread: on two cores, start-up is what costs.
        tuning = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Dlog4j2.level=INFO"]
        return subprocess.Popen(  # noqa: S603 - our own arguments
            ["java", *tuning, *options, "-cp", self._classpath, main, *arguments],  # noqa: S607
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the tests; they then stop the broker in order
        )

    def _await_answer(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._answers():
            if process.poll() is not None:
                msg = f"the broker ended with {process.returncode}; the log ends:\n"
                raise BrokerError(msg + self.log_tail())
            if time.monotonic() > deadline:
                msg = f"the broker did not answer within {timeout_s:g} s; the log ends:\n"
                raise BrokerError(msg + self.log_tail())
            time.sleep(0.1)

    def _answers(self) -> bool:
        # A bare connect first: the client would log every refused attempt.
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        from kafka.errors import KafkaError  # noqa: PLC0415 - slow; needed once it listens

        try:
            with self._admin() as admin:
                return bool(admin.describe_cluster()["brokers"])
        except KafkaError:
            return False

    def _admin(self) -> contextlib.closing[Any]:
        from kafka.admin import KafkaAdminClient  # noqa: PLC0415 - slow, and only some need it

        return contextlib.closing(
            KafkaAdminClient(bootstrap_servers=self.bootstrap, bootstrap_timeout_ms=5_000)
        )

    def _release(self) -> subprocess.Popen[bytes] | None:
        process, self._process = self._process, None
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.kill()  # before the broker ends: its id may be given to another process
            watchdog.communicate()
        return process


def server_properties(
    *, data_dir: Path, port: int, controller_port: int, message_max_bytes: int
) -> dict[str, str]:
    """Return the settings of a small broker that is quick to start, to rebalance and to abort.

    Parameters
    ----------
    data_dir : Path
        The folder under which the log segments go.
    port, controller_port : int
        Where clients and the controller connect.
    message_max_bytes : int
        The largest record batch.
    """
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": (
            f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"
        ),
        "log.dirs": str((data_dir / "data").resolve()),
        # A misspelt topic is an error, as in production.
        "auto.create.topics.enable": "false",
        "num.partitions": "1",
        # One node, and few partitions for the internal topics: the default of 50 takes seconds.
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        # Tests must not wait for the defaults: 3 s for a first member, 6 s for a dead one, 10 s
        # between two looks for transactions that timed out.
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "500",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
        # A killed broker may register again only once its last session ended: 9 s by default.
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "message.max.bytes": str(message_max_bytes),
        "replica.fetch.max.bytes": str(message_max_bytes),
        "log.cleaner.dedupe.buffer.size": str(4 * _MIB),  # 128 MiB of a 512 MiB heap by default
    }


def _cluster_id() -> str:
    # Kafka's tool would take a leading dash for an option.
    encoded = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return _cluster_id() if encoded.startswith("-") else encoded


def _up(directory: Path, *, libs: Path, port: int) -> str:
    pid_file = directory / "broker.pid"
    if _running(pid_file) is not None:
        return f"already up; stop it with `make kafka-down` (log: {directory / 'broker.log'})"
    broker = KafkaBroker(
        libs=libs,
        data_dir=directory,
        port=port,
        properties={"auto.create.topics.enable": "true"},
    )
    if not port_is_free(port):
        msg = f"port {port} is taken; name another one: `make kafka-up KAFKA_PORT=9094`"
        raise BrokerError(msg)
    broker.start(survive=True)
    pid_file.write_text(f"{broker.pid}\n")
    return f"Kafka answers on {broker.bootstrap} (log: {broker.log_path})"


def _down(directory: Path) -> str:
    pid_file = directory / "broker.pid"
    process = _running(pid_file)
    pid_file.unlink(missing_ok=True)
    if process is None:
        return "no broker is up"
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except psutil.TimeoutExpired:
        process.kill()
    return "Kafka is down; its data stays until `make clean`"


def _running(pid_file: Path) -> psutil.Process | None:
    """Return the broker the file names, unless the id has passed to another program."""
    try:
        process = psutil.Process(int(pid_file.read_text()))
        return process if "kafka.Kafka" in process.cmdline() else None
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None


def main(arguments: Sequence[str] | None = None) -> int:
    """Start or stop a broker that stays: ``up [--port 9092]`` and ``down``."""
    parser = argparse.ArgumentParser(prog="python -m streamad.testing.kafka_broker")
    parser.add_argument("command", choices=["up", "down"])
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--libs", type=Path, default=DEFAULT_LIBS)
    parser.add_argument("--dir", type=Path, default=Path(".cache/kafka/up"))
    given = parser.parse_args(arguments)
    given.dir.mkdir(parents=True, exist_ok=True)
    act = functools.partial(_up, libs=given.libs, port=given.port)
    try:
        said = act(given.dir) if given.command == "up" else _down(given.dir)
    except StreamadError as error:
        sys.stderr.write(f"{error}\n")
        return os.EX_UNAVAILABLE
    sys.stdout.write(f"{said}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
