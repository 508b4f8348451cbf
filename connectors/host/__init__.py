"""The machine it runs on as a source: its metrics, the processes it starts, its connections."""

from connectors.host.connections import Connections
from connectors.host.metrics import HostSource
from connectors.host.processes import ProcessStarts

__all__ = ["Connections", "HostSource", "ProcessStarts"]
