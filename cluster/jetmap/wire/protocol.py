"""The protocol's versions, and what each of them brought.

Raise PROTOCOL with every change that the other side must know about; a new last field of a message
with a default is not one. Raise OLDEST_PROTOCOL to drop support for older releases: their agents
and dispatchers are then refused by name. Announcements and chunks without a number have protocol 1,
from before the number.
"""

from __future__ import annotations

# Numbers of this release's protocol, and of the oldest that it understands.
PROTOCOL = 7
OLDEST_PROTOCOL = 1
# The protocol since which agents fetch large items, and dispatchers take large values, in parts.
PARTS_PROTOCOL = 3
# The protocol since which trusting workers read the format "pickle".
PICKLES_PROTOCOL = 4
# The protocol since which dispatchers know functions by their digest and read cores undecoded.
DIGEST_PROTOCOL = 5
# The protocol since which agents fetch constants.
CONSTANTS_PROTOCOL = 6
# The protocol since which agents end chunks early when somebody else waits for a core.
HURRY_PROTOCOL = 7


def understands(protocol: int, oldest: int = OLDEST_PROTOCOL) -> bool:
    """Return whether this release works with one of ``protocol`` that understands ``oldest``."""
    return protocol >= OLDEST_PROTOCOL and oldest <= PROTOCOL
