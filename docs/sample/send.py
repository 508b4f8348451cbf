"""Send hosts.csv to the topic `metrics`, a record a row, as if its week ended now."""

from __future__ import annotations

import csv
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from kafka import KafkaProducer


def main() -> None:
    """Send the file once."""
    with Path(__file__).with_name("hosts.csv").open() as file:
        rows = list(csv.DictReader(file))
    shift = datetime.now(UTC) - datetime.fromisoformat(rows[-1]["ts"])
    server = os.environ.get("KAFKA_BOOTSTRAP_SERVERS", "localhost:9092")
    producer = KafkaProducer(bootstrap_servers=server)
    for row in rows:
        moment = datetime.fromisoformat(row["ts"]) + shift
        record = {**row, "ts": moment.isoformat(), "value": float(row["value"])}
        # All records of a series must be in one partition: the key decides.
        key = f"{row['host']}/{row['metric']}".encode()
        producer.send("metrics", json.dumps(record).encode(), key)
    producer.flush()
    producer.close()


if __name__ == "__main__":
    main()
