"""Start or stop a cluster that stays."""

import sys

from streamad.testing.flink.command import main

sys.exit(main())
