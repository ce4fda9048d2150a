"""All faults, by what they concern.

Where a fault is not said to be everywhere, it concerns the requests for an answer alone: questions
for the model list are answered as ever.
"""

from __future__ import annotations

from collections.abc import Mapping

from .case_connections import CERTIFICATES, CONNECTIONS, KEPT_CONNECTIONS, PROXIES
from .case_refusals import NETWORKS, REFUSALS
from .case_streams import STREAMS
from .fault import Fault

SECTIONS: Mapping[str, tuple[Fault, ...]] = {
    "Connections": CONNECTIONS,
    "Connections that were kept": KEPT_CONNECTIONS,
    "Streams": STREAMS,
    "Answers that say no": REFUSALS,
    "Networks that answer instead of the server": NETWORKS,
    "Certificates": CERTIFICATES,
    "Proxies": PROXIES,
}
FAULTS = tuple(fault for faults in SECTIONS.values() for fault in faults)
