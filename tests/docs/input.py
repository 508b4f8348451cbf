"""What is promised of any input, as tables of a page: bounds, and reasons of rejections."""

from __future__ import annotations

from connectors.codecs import arrow, budget, labels, prometheus, rows
from connectors.codecs.otlp import base as otlp
from connectors.records import dead_letters, output_size


def bounds_table() -> str:
    """Return the bounds on what one message may cost."""
    bounds = [
        ("dead-letter records per message", f"{budget.MAX_LETTERS:,}, then one more"),
        ("their bytes, with keys and headers", _size(budget.MAX_LETTER_BYTES)),
        ("payload kept in a dead-letter record", f"{dead_letters.MAX_PAYLOAD_BYTES:,} bytes"),
        ("original key kept in it", f"{dead_letters.MAX_KEY_BYTES:,} bytes"),
        ("original headers kept in it", _size(dead_letters.MAX_ORIGINAL_HEADER_BYTES)),
        ("any record written", f"{output_size.MAX_RECORD_BYTES:,} bytes"),
        ("a key", f"{rows.MAX_KEY_BYTES} bytes; a longer one is rejected"),
        ("a tag", f"{rows.MAX_TAG_BYTES} bytes; a longer one is cut"),
        (
            "expansion of compressed input (Arrow, snappy)",
            f"{arrow.MAX_EXPANSION} times `input.max_message_bytes`",
        ),
        ("a series in a remote write request", _size(prometheus.PARSE_BYTES)),
        ("labels of a series, attributes of a point", f"{labels.MAX_LABELS:,}"),
        ("attributes of an OTLP resource", f"{otlp.MAX_RESOURCE_LABELS:,}"),
        ("dictionary batches of an Arrow message", f"{arrow.MAX_DICTIONARIES:,}"),
    ]
    lines = [f"| {what} | {most} |" for what, most in bounds]
    return "\n".join(["| what | at most |", "|---|---|", *lines])


def reasons_table() -> str:
    """Return why a decoder rejects a message or a row."""
    lines = [f"| `{reason}` | {text} |" for reason, text in sorted(rows.REASONS.items())]
    return "\n".join(["| `streamad.error.reason` | what |", "|---|---|", *lines])


def _size(n_bytes: int) -> str:
    return f"{n_bytes // 2**20} MiB" if n_bytes >= 2**20 else f"{n_bytes // 1024} KiB"
