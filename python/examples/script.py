"""Bills what a gateway has logged, once however often it runs: `python script.py access.log`."""

import sys
from pathlib import Path

from dodo_ingestion import Ingestion, create_batch

log = Path(sys.argv[1])

with Ingestion(event_name="api_call") as ingestion, create_batch(ingestion) as batch:
    for number, line in enumerate(log.read_text().splitlines(), start=1):
        customer_id, endpoint = line.split()
        batch.add(
            customer_id=customer_id,
            metadata={"endpoint": endpoint},
            event_id=f"{log.name}:{number}",
        )
