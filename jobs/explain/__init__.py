"""Why there was an alert, or none."""
