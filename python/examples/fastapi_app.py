"""A metered FastAPI app: `uvicorn fastapi_app:app`."""

from fastapi import FastAPI, Request

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware, set_units

app = FastAPI()
app.add_middleware(
    MeterMiddleware,
    ingestion=Ingestion(event_name="api_call"),
    customer="x-customer-id",
    exclude=["/health"],
)


@app.get("/users/{id}")
def user(id: str) -> dict[str, str]:  # noqa: A002
    """Cost one unit, as every call does."""
    return {"id": id}


@app.get("/reports/{id}")
def report(request: Request, id: str) -> dict[str, str]:  # noqa: A002
    """Cost more."""
    set_units(request, 10)
    return {"report": id}


@app.get("/health")
def health() -> str:
    """Cost nothing."""
    return "ok"
