"""The call that is measured: the same as that of the Rust benches."""

import uuid
from datetime import datetime, timezone

EVENT_NAME = "api_call"
CUSTOMERS = [f"cus_9VuW4K7O3GHwasENg{number:03}" for number in range(64)]

Metadata = dict[str, str | int | float]


def customer(number: int) -> str:
    """Tell whose call the one with this number is."""
    return CUSTOMERS[number % len(CUSTOMERS)]


def metadata(number: int) -> Metadata:
    """Tell what is known of the call with this number."""
    return {
        "endpoint": "/v1/customers/{id}/documents/{document}",
        "method": "GET",
        "status_code": 200,
        "response_time_ms": (100_000 + number % 50_000) / 1000,
        "response_bytes": 18_432,
    }


def event(number: int) -> dict[str, object]:
    """Build the event by hand, as the billing API takes it."""
    return {
        "event_id": str(uuid.uuid4()),
        "customer_id": customer(number),
        "event_name": EVENT_NAME,
        "timestamp": datetime.now(timezone.utc).isoformat(),
        "metadata": metadata(number),
    }
