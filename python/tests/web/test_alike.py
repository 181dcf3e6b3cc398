"""What the middlewares of all languages make of the same."""

from typing import Any

import pytest
from asgi_served import Asgi
from serving import HEADERS, OWN_KEYS, ROOM, SAID, WITHIN, billed

from conftest import Connect, Meter
from dodo_ingestion import ConfigurationError
from dodo_ingestion._native import customer_in_asgi_headers, customer_in_header
from dodo_ingestion.asgi import MeterMiddleware, set_customer, set_endpoint, set_metadata


@pytest.mark.parametrize("header", HEADERS, ids=repr)
def test_a_header_names_the_customer(header: dict[str, Any]) -> None:
    values = header["values"]
    pairs = [(b"x-customer-id", value.encode("latin-1")) for value in values]
    assert customer_in_asgi_headers(pairs, b"x-customer-id") == header["customer"]
    assert customer_in_header(values) == header["customer"]


@pytest.mark.parametrize("word", SAID, ids=repr)
def test_a_word_names_the_customer(word: dict[str, Any], connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="alike-said")
    header = f"cus_alike_header_{SAID.index(word)}"
    before = len(billed(meter, ingestion, word["customer"] or header))
    served = Asgi(before=lambda scope: set_customer(scope, word["said"]))
    served.serve(ingestion, header, customer="x-customer-id")
    assert len(billed(meter, ingestion, word["customer"] or header)) == before + 1


def test_the_keys_of_the_middleware_and_the_room_for_others(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="alike-keys")
    pairs: dict[str, Any] = {
        **dict.fromkeys(OWN_KEYS, "mine"),
        **{f"k{n:02}": n for n in range(60)},
    }
    Asgi(before=lambda scope: set_metadata(scope, pairs)).serve(
        ingestion, "cus_alike_keys", customer="x-customer-id"
    )
    (event,) = billed(meter, ingestion, "cus_alike_keys")
    metadata = event["metadata"]
    assert "mine" not in metadata.values()
    assert [key for key in metadata if key not in OWN_KEYS] == [f"k{n:02}" for n in range(ROOM)]
    with pytest.raises(ConfigurationError, match=f"{ROOM + 1} pairs; a call has room for {ROOM}"):
        MeterMiddleware(
            Asgi().app,
            ingestion=ingestion,
            customer="x-customer-id",
            metadata={f"k{n}": n for n in range(ROOM + 1)},
        )


def test_a_pair_that_is_set_to_nothing_is_left_out(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="alike-none")
    options: dict[str, Any] = {"metadata": {"plan": "free", "region": "eu"}, "units": lambda _: 2}
    served = Asgi(before=lambda scope: set_metadata(scope, {"plan": None, "units": None}))
    served.serve(ingestion, "cus_alike_none", customer="x-customer-id", **options)
    (event,) = billed(meter, ingestion, "cus_alike_none")
    assert "plan" not in event["metadata"]
    assert (event["metadata"]["region"], event["metadata"]["units"]) == ("eu", 2)


@pytest.mark.parametrize("status", [204, 304])
def test_a_body_that_is_not_sent_is_not_counted(
    status: int, connect: Connect, meter: Meter
) -> None:
    ingestion = connect(account="alike-bodiless")
    Asgi(status=status).serve(ingestion, f"cus_alike_{status}", customer="x-customer-id")
    ingestion.flush(timeout=WITHIN)
    (event,) = meter.events(f"cus_alike_{status}")
    assert event["metadata"]["response_bytes"] == 0


def test_an_empty_template_says_nothing(connect: Connect, meter: Meter) -> None:
    ingestion = connect(account="alike-template")
    options: dict[str, Any] = {"customer": "x-customer-id", "endpoint": lambda _: "/by/option"}
    served = Asgi(before=lambda scope: set_endpoint(scope, ""))
    served.serve(ingestion, "cus_alike_template", **options)
    (event,) = billed(meter, ingestion, "cus_alike_template")
    assert event["metadata"]["endpoint"] == "/by/option"
