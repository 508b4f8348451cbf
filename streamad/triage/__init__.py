"""Kinds of alerts: alike ones are grouped, named by people, and recognised the next time."""
