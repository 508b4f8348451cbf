"""Categorical events: who did what to which, from where; one row an event."""
