"""Kafka: clients, group members, transactions, logs."""
