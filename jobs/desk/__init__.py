"""What people ask of a desk and answer to it: alerts, incidents, silences, budgets."""
