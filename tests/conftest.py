"""What the tests of every room share: one real broker a session, and topics of one's own."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest.doctest import DoctestModule
from kafka.net.inet import KafkaNetSocket
from kafka.net.transport import KafkaTCPTransport

from streamad.testing.flink import FlinkCluster, why_no_cluster
from streamad.testing.kafka_broker import KafkaBroker, why_no_broker

ROOT = Path(__file__).resolve().parent.parent
KAFKA_LIBS = ROOT / ".cache" / "kafka" / "libs"


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for doctests in packages only: else a test file that fails to import would just skip.

    The doctest collector comes first, skips on an import error, and leaves an empty module behind.
    """
    found = yield
    return [one for one in found if not isinstance(one, DoctestModule)]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of a room by its folder, so that no file can forget to."""
    for item in items:
        for room in ("integration", "flink", "chart"):
            if ROOT / "tests" / room in item.path.parents:
                item.add_marker(room)


class LeftSocket(socket.socket):
    """A socket of kafka-python. One that a closed client forgot is closed without a warning."""

    left = False

    def __del__(self) -> None:
        if self.left:
            self.close()
        super().__del__()  # type: ignore[misc]  # warns of a client that nobody closed


@pytest.fixture(scope="session", autouse=True)
def sockets_left_by_closed_clients() -> Iterator[None]:
    """Close what kafka-python leaves to the collector, though its client was closed.

    It forgets a socket that is connecting when its client is closed (or its broker goes), and one
    with a request not yet sent whole: it waits for that, and ends its loop. The warning of it
    would fail whichever test runs as the collector does.
    """
    connect, close = KafkaNetSocket.sock_connect, KafkaTCPTransport.close

    async def sock_connect(
        self: KafkaNetSocket, net: Any, sock: socket.socket, address: Any, **given: Any
    ) -> Any:
        try:
            return await connect(self, net, sock, address, **given)
        except BaseException:
            sock.close()
            raise

    def close_transport(self: KafkaTCPTransport) -> None:
        close(self)
        if isinstance(self._sock, LeftSocket):
            self._sock.left = True

    def new_socket(_: KafkaNetSocket, *given: Any) -> LeftSocket:
        return LeftSocket(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(KafkaNetSocket, "socket", new_socket)
        patch.setattr(KafkaNetSocket, "sock_connect", sock_connect)
        patch.setattr(KafkaTCPTransport, "close", close_transport)
        yield


def broker_required() -> bool:
    """Say whether a missing broker is a failure: in CI nothing may pass by not being run."""
    return any(
        os.environ.get(name, "") not in {"", "0"} for name in ("CI", "STREAMAD_REQUIRE_KAFKA")
    )


@pytest.fixture(scope="session")
def kafka_libs() -> Path:
    """The folder with Kafka's jars, for tests that run (and kill) a broker of their own."""
    missing = why_no_broker(KAFKA_LIBS)
    if missing and broker_required():
        pytest.fail(f"a Kafka broker is required here: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"needs a Kafka broker: {missing}")
    return KAFKA_LIBS


@pytest.fixture(scope="session")
def kafka(kafka_libs: Path) -> Iterator[KafkaBroker]:
    """The broker of the session. Do not stop or kill it: others use it; take `kafka_libs`."""
    with KafkaBroker(libs=kafka_libs) as broker:
        yield broker


@pytest.fixture
def topic(kafka: KafkaBroker) -> Callable[..., str]:
    """Create topics no other test has: ``topic("signals", partitions=4)`` returns the name."""

    def create(name: str, *, partitions: int = 1, configs: dict[str, str] | None = None) -> str:
        unique = f"{name}-{uuid.uuid4().hex[:8]}"
        kafka.create_topic(unique, partitions=partitions, configs=configs)
        return unique

    return create


def cluster_required() -> bool:
    """Say whether a missing Flink is a failure, as `make test-flink` has it."""
    return os.environ.get("STREAMAD_REQUIRE_FLINK", "") not in {"", "0"}


@pytest.fixture(scope="session")
def flink_distribution() -> None:
    """Flink's distribution and Java, for tests that run (and kill) a cluster of their own."""
    missing = why_no_cluster()
    if missing and cluster_required():
        pytest.fail(f"a Flink cluster is required here: {missing}", pytrace=False)
    if missing:
        pytest.skip(f"needs a Flink cluster: {missing}")


@pytest.fixture(scope="session")
def flink_of_session(flink_distribution: None) -> Iterator[FlinkCluster]:
    with FlinkCluster(slots=2, task_managers=1) as cluster:
        yield cluster


@pytest.fixture
def flink(flink_of_session: FlinkCluster) -> FlinkCluster:
    """The cluster of the session. Do not kill it: others use it; take `flink_distribution`."""
    # A task manager may have ended as the last test's job did: see docs/flink.md.
    return flink_of_session.start()
