"""aiohttp's middleware, with handlers that do exactly what a test asks for."""

from http.client import HTTPConnection

import pytest
from aiohttp import web
from serving import aiohttp_server, billed

from conftest import Connect, Meter
from dodo_ingestion import aiohttp


@pytest.mark.parametrize("length", ["8", None])
def test_a_stream_of_a_declared_length_is_metered_when_it_is_whole(
    length: str | None, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="aiohttp-declared")
    customer = f"cus_aiohttp_declared_{length}"
    accepted: list[int] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        headers = {} if length is None else {"Content-Length": length}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        for body in (b"four", b"four"):
            await response.write(body)
            accepted.append(ingestion.stats()["accepted"] - before)
        await response.write_eof()
        return response

    app = web.Application()
    app.router.add_get("/declared", handler)
    aiohttp.setup(app, ingestion=ingestion, customer=lambda _: customer)
    before = ingestion.stats()["accepted"]
    with aiohttp_server(app) as port:
        client = HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("GET", "/declared")
        assert client.getresponse().read() == b"fourfour"
        client.close()
        (event,) = billed(meter, ingestion, customer)
    assert accepted == [0, int(length is not None)]
    assert event["metadata"]["response_bytes"] == 8
    assert "aborted" not in event["metadata"]
