"""Every time, in seconds, that dispatchers, agents and the broker must agree on.

They hold together by inequalities, which `tests/unit/wire/test_timing.py` asserts: change one
here and it says which other it breaks. Times that only one process keeps stay in its room.
"""

from __future__ import annotations

# Between two announcements of an agent, and between two claims of what it holds.
BEAT = 2.0
# Between an agent's looks at what it holds; one that is late by more than a beat was frozen.
LOOK = 1.0
# Without an answer to any claim, after which an agent takes a dispatcher for gone.
SILENCE = 8.0
# For which an agent remembers such a dispatcher, and drops at once what it still gets from it.
GONE_KEPT = 10.0
# Without an announcement, after which a dispatcher takes an agent for gone: three missed.
GONE_AFTER = 7.0

# Of silence about a chunk, two beats and a little, before its dispatcher publishes it again.
PATIENCE = 4.5
# Of silence about a chunk before its dispatcher looks whether the broker ever got it.
UNCONFIRMED_SECONDS = 1.0
# That agents have to claim what they hold, once the broker is back.
RECLAIM = 1.0
# From an agent's last claim of a chunk until the agent is missed, if it held the chunk when it
# vanished: two beats and a little, and the silence. What it claimed earlier, it had let go.
HELD = 5.0 + GONE_AFTER
# In which a suspect item that is out alone keeps the others waiting.
SUSPECT_SECONDS = 15.0

# Without a renewal, after which the broker delivers a chunk again: a consumer's ``ack_wait``.
ACK_WAIT = 10.0
# Between an agent's renewals of what it holds.
RENEW_SECONDS = 3.0
# Without a pull, after which the broker removes a consumer: its ``inactive_threshold``.
INACTIVE = 300.0

# For which a pull waits at the broker for a chunk.
PARK_SECONDS = 30.0
# The same where several servers hold the stream: a leader that changes forgets its pulls.
CLUSTER_PARK_SECONDS = 5.0
# Between a cluster's signs of life to a pull that waits; a lone server cannot lose one and live.
HEARTBEAT_SECONDS = 2.0
# For the broker's answer to a pull that does not wait.
ANSWER_SECONDS = 2.0

# For which a dispatcher that runs jobs counts as alive after its last renewal.
JOB_LEASE_SECONDS = 8.0
# Between the looks of such a dispatcher at the leases of all, its own among them.
JOB_BEAT_SECONDS = 2.0
