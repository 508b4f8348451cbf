"""The demo: this machine, disturbed on purpose."""
