"""Which alerts are one incident, and what probably caused it; see `linking` and `causes`."""
