"""Bills what a gateway has logged: `python script.py access.log`, each line a call.

    2026-11-28T09:30:00+00:00 cus_1 /v1/users

An id is made of its line, and the API counts an id once for as long as it remembers it. So the
script can be run again after a crash, also on a log that has grown or was renamed, but not on one
of last month. The API takes calls of the last hour, and older ones are left out: run it often.
"""

import hashlib
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path

from dodo_ingestion import Ingestion, ValidationError, create_batch

seen: Counter[str] = Counter()

with Ingestion(event_name="api_call") as ingestion, create_batch(ingestion) as batch:
    for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
        seen[line] += 1  # two calls may be logged alike
        try:
            time, customer_id, endpoint = line.split()
            batch.add(
                customer_id=customer_id,
                metadata={"endpoint": endpoint},
                event_id=hashlib.sha256(f"{line} {seen[line]}".encode()).hexdigest(),
                timestamp=datetime.fromisoformat(time),
            )
        except (ValueError, ValidationError) as error:
            print(f"left out: {line!r}: {error}", file=sys.stderr)
