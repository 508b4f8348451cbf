"""What is written to topics: findings, alerts, scores, dead letters, and their shapes."""
