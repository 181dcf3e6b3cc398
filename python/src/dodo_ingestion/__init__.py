"""Usage metering for API gateways and web apps, billed with Dodo Payments.

>>> ingestion = Ingestion(api_key="…", environment="test_mode", event_name="api_call")
>>> track_api_call(ingestion, customer_id="cus_1", metadata={"endpoint": "/v1/users"})

A track verb returns in microseconds, when the call is safe from a crash of this process. Delivery
happens in the background; the receipt that a track verb returns can wait for it.
"""

import atexit

from dodo_ingestion import _interpreter  # noqa: F401 - before what it refuses

# isort: split
from dodo_ingestion import _alarm, _llm_wrap
from dodo_ingestion._native import (
    Batch,
    Ingestion,
    Receipt,
    create_batch,
    track_api_call,
)
from dodo_ingestion._siblings import track_object_storage, track_stream_bytes, track_time_range
from dodo_ingestion.errors import (
    AuthenticationError,
    ClosedError,
    ConfigurationError,
    IngestionError,
    IngestionOverflowError,
    IngestionTimeoutError,
    NetworkError,
    RejectedError,
    StorageError,
    TooLargeError,
    ValidationError,
)
from dodo_ingestion.llm import LLMTracker, create_llm_tracker

__all__ = [
    "AuthenticationError",
    "Batch",
    "ClosedError",
    "ConfigurationError",
    "Ingestion",
    "IngestionError",
    "IngestionOverflowError",
    "IngestionTimeoutError",
    "LLMTracker",
    "NetworkError",
    "Receipt",
    "RejectedError",
    "StorageError",
    "TooLargeError",
    "ValidationError",
    "create_batch",
    "create_llm_tracker",
    "track_api_call",
    "track_object_storage",
    "track_stream_bytes",
    "track_time_range",
]

atexit.register(_alarm.close)
atexit.register(_llm_wrap.end_open_streams)  # runs first
