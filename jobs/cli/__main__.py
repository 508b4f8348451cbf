"""``python -m jobs.cli``: the command, where it is not installed."""

from jobs.cli import main

raise SystemExit(main())
