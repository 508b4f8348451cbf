"""Make the topic `metrics` and send hosts.csv to it, a record a row, as if its week ended now."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import NewTopic

TOPIC = "metrics"


def main() -> None:
    """Send the file once."""
    with Path(__file__).with_name("hosts.csv").open() as file:
        rows = list(csv.DictReader(file))
    shift = datetime.now(UTC) - datetime.fromisoformat(rows[-1]["ts"])
    server = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    admin = KafkaAdminClient(bootstrap_servers=server)
    if TOPIC not in admin.list_topics():
        admin.create_topics([NewTopic(TOPIC, num_partitions=2, replication_factor=1)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=server)
    for row in rows:
        moment = datetime.fromisoformat(row["ts"]) + shift
        record = {**row, "ts": moment.isoformat(), "value": float(row["value"])}
        # All records of a series must be in one partition: the key decides.
        key = f"{row['host']}/{row['metric']}".encode()
        producer.send(TOPIC, json.dumps(record).encode(), key)
    producer.flush()
    producer.close()


if __name__ == "__main__":
    main()
