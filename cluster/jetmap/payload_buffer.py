"""A buffer for one large payload, which is filled from a socket and handed on without a copy."""

from __future__ import annotations

import io

# Bytes of a payload, above which it is sent as it is, and read into a buffer of its own: below, the
# bookkeeping costs more than the copy.
LARGE_BYTES = 16_384


def payload_buffer(size: int) -> io.BytesIO:
    """Return a buffer of this size; ``getvalue`` copies nothing once its views are gone."""
    buffer = io.BytesIO()
    buffer.seek(size - 1)
    buffer.write(b"\0")
    return buffer
