"""Logins that a broker refuses, as errors: kafka-python 3.0.12 repeats them as if it were away.

The client means to remember a refused login and raise it at the next use of that broker, but the
error never reaches the place that remembers it: bootstrap would try for ever.
"""

from __future__ import annotations

from typing import Any, Final

from kafka import errors as kafka_errors
from kafka.net.compat import KafkaNetClient
from kafka.net.manager import KafkaConnectionManager
from kafka.net.selector import NetworkSelector

UNAUTHENTICATED: Final = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.UnsupportedSaslMechanismError,
    kafka_errors.IllegalSaslStateError,
)
"""The broker answers and does not accept who we say we are; no second attempt cures it."""


class _Manager(KafkaConnectionManager):  # type: ignore[misc]
    async def _connect(self, node: Any, conn: Any, **options: Any) -> None:
        await super()._connect(node, conn, **options)
        made = conn.init_future
        if made.is_done and isinstance(made.exception, UNAUTHENTICATED):
            self._auth_failures[node.node_id] = made.exception


def client_that_tells(**options: Any) -> KafkaNetClient:
    """Return the network client for ``kafka_client``: a refused login is raised, not repeated."""
    net = NetworkSelector(**options)
    return KafkaNetClient(net=net, manager=_Manager(net, **options), **options)
