"""Does jobs, and says when one is billed: `python async_worker.py`, each line a customer."""

import asyncio
import sys

from dodo_ingestion import Ingestion, IngestionError, track_api_call


async def work(jobs: "asyncio.Queue[str]", ingestion: Ingestion) -> None:
    """Do jobs until there are none."""
    while not jobs.empty():
        customer_id = jobs.get_nowait()
        try:
            receipt = track_api_call(
                ingestion, customer_id=customer_id, metadata={"endpoint": "render"}
            )
            await receipt.delivered()
        except IngestionError as error:
            print(customer_id, "is not billed yet:", error)
        else:
            print(customer_id, "is billed")


async def main() -> None:
    """Have three workers share the jobs."""
    jobs: asyncio.Queue[str] = asyncio.Queue()
    for line in sys.stdin:
        jobs.put_nowait(line.strip())
    async with Ingestion(event_name="api_call") as ingestion:
        await asyncio.gather(*(work(jobs, ingestion) for _ in range(3)))


asyncio.run(main())
