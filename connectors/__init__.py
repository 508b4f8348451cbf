"""Sources and sinks, one technology a file."""
