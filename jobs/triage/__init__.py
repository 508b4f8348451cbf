"""``streamad triage``: groups of alike alerts, and their names."""
