"""An app that nobody has told to flush: `uvicorn shutdown_app:app`."""

from fastapi import FastAPI

from dodo_ingestion import Ingestion
from dodo_ingestion.asgi import MeterMiddleware

app = FastAPI()
app.add_middleware(MeterMiddleware, ingestion=Ingestion, customer="x-customer-id")


@app.get("/")
def root() -> str:
    return "ok"
