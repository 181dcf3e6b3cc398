"""The official Python SDK against the meter: what its types say is what arrives."""

import asyncio
import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dodopayments
import pytest
from conftest import Connect, serving
from dodopayments import DodoPayments
from dodopayments.types import Event, Meter

_numbers = itertools.count()


def unique(what: str) -> str:
    return f"{what}_{next(_numbers)}"


def event(**fields: Any) -> dict[str, Any]:
    return {
        "event_id": unique("py"),
        "customer_id": "cus_python",
        "event_name": "api_call",
        **fields,
    }


def ago(**distance: float) -> datetime:
    return datetime.now(UTC) - timedelta(**distance)


def ingest(client: DodoPayments, *events: dict[str, Any]) -> int:
    return client.usage_events.ingest(events=events).ingested_count


def ids(events: Any) -> list[str]:
    return [event.event_id for event in events.items]


class TestIngest:
    def test_one_event_comes_back_as_it_was_sent(self, client: DodoPayments) -> None:
        metadata = {"endpoint": "/v1/ü/{id}", "n": 3, "ms": 12.5, "ok": True}
        sent = event(timestamp=ago(minutes=5), metadata=metadata)
        assert ingest(client, sent) == 1

        read = client.usage_events.retrieve(sent["event_id"])
        assert isinstance(read, Event)
        assert (read.customer_id, read.event_name) == ("cus_python", "api_call")
        assert read.timestamp == sent["timestamp"]
        assert read.metadata == metadata
        assert isinstance(read.business_id, str)

    def test_integers_are_exact(self, client: DodoPayments) -> None:
        # The SDK's own types have no integers in metadata; what arrives is exact.
        sent = event(metadata={"most": 2**63 - 1, "least": -(2**63)})
        assert ingest(client, sent) == 1
        raw = client.usage_events.with_raw_response.retrieve(sent["event_id"])
        assert json.loads(raw.text())["metadata"] == sent["metadata"]

    def test_what_may_be_left_out(self, client: DodoPayments) -> None:
        before = ago(seconds=1)
        sent = [event(), event(timestamp=None, metadata=None), event(metadata={})]
        assert ingest(client, *sent) == 3
        bare, null, empty = (client.usage_events.retrieve(one["event_id"]) for one in sent)
        assert (bare.metadata, null.metadata, empty.metadata) == (None, None, {})
        assert before < bare.timestamp < datetime.now(UTC) + timedelta(seconds=1)

    def test_a_request_holds_1_to_1000_events(self, client: DodoPayments) -> None:
        customer = unique("cus")
        events = [event(customer_id=customer) for _ in range(1001)]
        with pytest.raises(dodopayments.BadRequestError, match="1 to 1000"):
            ingest(client, *events)
        with pytest.raises(dodopayments.BadRequestError, match="1 to 1000"):
            ingest(client)
        assert client.usage_events.list(customer_id=customer).items == []
        assert ingest(client, *events[:1000]) == 1000

    def test_an_id_counts_once(self, client: DodoPayments) -> None:
        first, second = event(), event()
        with pytest.raises(dodopayments.BadRequestError) as refused:
            ingest(client, first, second, first)
        assert refused.value.body["code"] == "INVALID_REQUEST_PARAMETERS"
        assert ingest(client, first) == 1
        assert ingest(client, {**first, "customer_id": "cus_other"}, second) == 1
        assert ingest(client, first, second) == 0
        assert client.usage_events.retrieve(first["event_id"]).customer_id == "cus_python"

    @pytest.mark.parametrize(
        ("timestamp", "taken"),
        [
            (timedelta(minutes=-59), True),
            (timedelta(minutes=-61), False),
            (timedelta(minutes=4), True),
            (timedelta(minutes=6), False),
        ],
    )
    def test_the_window(self, client: DodoPayments, timestamp: timedelta, taken: bool) -> None:
        sent = event(timestamp=datetime.now(UTC) + timestamp)
        if taken:
            assert ingest(client, sent) == 1
        else:
            with pytest.raises(dodopayments.BadRequestError, match="timestamp"):
                ingest(client, sent)

    @pytest.mark.parametrize(
        ("metadata", "error"),
        [
            ({"nested": {"a": 1}}, dodopayments.UnprocessableEntityError),
            ({"list": [1]}, dodopayments.UnprocessableEntityError),
            ({"null": None}, dodopayments.UnprocessableEntityError),
            ({"large": 2**63}, dodopayments.UnprocessableEntityError),
            ({f"k{n}": n for n in range(51)}, dodopayments.BadRequestError),
            ({"k" * 101: 1}, dodopayments.BadRequestError),
            ({"k": "v" * 501}, dodopayments.BadRequestError),
        ],
    )
    def test_metadata_is_flat_and_small(
        self, client: DodoPayments, metadata: dict[str, Any], error: type[Exception]
    ) -> None:
        good, bad = event(), event(metadata=metadata)
        with pytest.raises(error):
            ingest(client, good, bad)
        with pytest.raises(dodopayments.NotFoundError):
            client.usage_events.retrieve(good["event_id"])

    def test_ids_of_any_text_can_be_looked_up(self, client: DodoPayments) -> None:
        for odd in ["a/b", "ü?#%", "100%25", "with space", "🦤", '"quoted"', "x" * 300]:
            sent = event(event_id=f"{unique('odd')} {odd}")
            assert ingest(client, sent) == 1
            assert client.usage_events.retrieve(sent["event_id"]).event_id == sent["event_id"]

    async def _async_ingest(self, url: str) -> int:
        options = {"bearer_token": "strangers_key", "base_url": url, "max_retries": 0}
        async with dodopayments.AsyncDodoPayments(**options) as client:
            return (await client.usage_events.ingest(events=[event()])).ingested_count

    def test_the_asynchronous_client(self, meter_url: str) -> None:
        assert asyncio.run(self._async_ingest(meter_url)) == 1


class TestList:
    @pytest.fixture
    def listed(self, connect: Connect) -> Iterator[DodoPayments]:
        with serving() as url:
            client = connect(url)
            self.fill(client)
            yield client

    @staticmethod
    def fill(client: DodoPayments) -> None:
        names = ["api_call", "export"]
        for n in range(25):
            ingest(
                client,
                event(
                    event_id=f"e{n:02}",
                    customer_id=f"cus_{n % 2}",
                    event_name=names[n % 5 == 0],
                    timestamp=ago(minutes=50 - n),
                ),
            )

    def test_each_filter(self, listed: DodoPayments) -> None:
        everything = [f"e{n:02}" for n in reversed(range(25))]
        events = listed.usage_events

        def found(**query: Any) -> list[str]:
            return ids(events.list(page_size=100, **query))

        assert found() == everything
        assert found(customer_id="cus_1") == everything[1::2]
        assert found(event_name="export") == ["e20", "e15", "e10", "e05", "e00"]
        assert found(customer_id="cus_1", event_name="export") == ["e15", "e05"]
        assert found(customer_id="nobody") == []
        tenth = events.retrieve("e10").timestamp
        assert found(start=tenth) == everything[:15]
        assert found(end=tenth) == everything[15:]
        assert found(start=tenth, end=events.retrieve("e12").timestamp) == ["e11", "e10"]
        meter = listed.meters.create(
            name="Exports",
            event_name="export",
            measurement_unit="exports",
            aggregation={"type": "count"},
        )
        assert found(meter_id=meter.id, customer_id="cus_0") == ["e20", "e10", "e00"]
        with pytest.raises(dodopayments.BadRequestError):
            found(meter_id=meter.id, event_name="api_call")
        with pytest.raises(dodopayments.NotFoundError):
            found(meter_id="mtr_none")

    def test_page_by_page(self, listed: DodoPayments) -> None:
        everything = [f"e{n:02}" for n in reversed(range(25))]
        pages = [ids(listed.usage_events.list(page_number=n)) for n in range(4)]
        assert pages == [everything[:10], everything[10:20], everything[20:], []]
        assert ids(listed.usage_events.list(page_number=2, page_size=7)) == everything[14:21]

    def test_the_sdks_own_paging_leaves_out_the_second_page(self, listed: DodoPayments) -> None:
        """The API counts its pages from 0, and the SDK takes a page without a number for page 1.

        So it goes on with page 2. That is the SDK's and the API's affair: the meter does as the
        API does. Who names page 0 is not helped, for the SDK takes 0 for no number.
        """
        everything = [f"e{n:02}" for n in reversed(range(25))]
        seen = [one.event_id for one in listed.usage_events.list()]
        assert seen == everything[:10] + everything[20:]
        assert [one.event_id for one in listed.usage_events.list(page_number=0)] == seen
        from_one = [one.event_id for one in listed.usage_events.list(page_number=1)]
        assert from_one == everything[10:]


class TestMeters:
    def test_made_listed_archived_and_taken_back(self, connect: Connect) -> None:
        with serving() as url:
            client = connect(url)
            made = [
                client.meters.create(
                    name=f"Meter {kind}",
                    description=None if kind == "count" else "What it adds up",
                    event_name="api_call",
                    measurement_unit="units",
                    aggregation={"type": kind, "key": None if kind == "count" else "bytes"},
                )
                for kind in ("count", "sum", "max", "last")
            ]
            assert all(isinstance(meter, Meter) for meter in made)
            count, total = made[:2]
            assert count.id.startswith("mtr_")
            assert (count.aggregation.type, count.aggregation.key) == ("count", None)
            assert (total.aggregation.type, total.aggregation.key) == ("sum", "bytes")
            assert (count.description, total.description) == (None, "What it adds up")
            assert count.created_at == count.updated_at
            assert ago(minutes=1) < count.created_at < datetime.now(UTC) + timedelta(seconds=1)
            assert client.meters.retrieve(count.id) == count

            def listed(**query: Any) -> list[str]:
                return [meter.id for meter in client.meters.list(**query).items]

            newest_first = [meter.id for meter in reversed(made)]
            assert listed() == newest_first
            assert listed(page_size=3, page_number=1) == newest_first[3:]
            assert client.meters.archive(count.id) is None
            assert (listed(), listed(archived=True)) == (newest_first[:3], [count.id])
            archived = client.meters.retrieve(count.id)
            assert archived.updated_at >= count.updated_at
            assert client.meters.unarchive(count.id) is None
            assert (listed(archived=False), listed(archived=True)) == (newest_first, [])

    def test_what_is_no_meter(self, client: DodoPayments) -> None:
        good: dict[str, Any] = {
            "name": "Bytes",
            "event_name": "api_call",
            "measurement_unit": "B",
            "aggregation": {"type": "sum", "key": "bytes"},
        }
        for bad in [
            {"name": ""},
            {"aggregation": {"type": "sum"}},
            {"aggregation": {"type": "median", "key": "bytes"}},
            {"aggregation": {"type": "max", "key": None}},
            {"filter": {"conjunction": "xor", "clauses": []}},
        ]:
            with pytest.raises(dodopayments.UnprocessableEntityError):
                client.meters.create(**{**good, **bad})
        with pytest.raises(dodopayments.BadRequestError):
            client.meters.list(page_size=101)
        for call in (client.meters.retrieve, client.meters.archive, client.meters.unarchive):
            with pytest.raises(dodopayments.NotFoundError):
                call("mtr_none")


class TestErrors:
    """Each status becomes the SDK's class for it, with the code and the message in its body."""

    @staticmethod
    def refusal(error: dodopayments.APIStatusError) -> tuple[int, str]:
        assert isinstance(error.body, dict)
        assert set(error.body) == {"code", "message"}
        assert error.body["message"]
        return error.status_code, error.body["code"]

    def test_a_wrong_key(self, meter_url: str, connect: Connect) -> None:
        stranger = connect(meter_url, key="wrong")
        calls = [
            lambda: ingest(stranger, event()),
            lambda: stranger.usage_events.list(),
            lambda: stranger.usage_events.retrieve("e"),
            lambda: stranger.meters.list(),
            lambda: stranger.meters.archive("mtr_none"),
        ]
        for call in calls:
            with pytest.raises(dodopayments.AuthenticationError) as refused:
                call()
            assert self.refusal(refused.value) == (401, "UNAUTHORIZED")

    def test_a_broken_rule(self, client: DodoPayments) -> None:
        with pytest.raises(dodopayments.BadRequestError) as refused:
            ingest(client, event(event_id=""))
        assert self.refusal(refused.value) == (400, "INVALID_REQUEST_PARAMETERS")
        with pytest.raises(dodopayments.BadRequestError) as refused:
            client.usage_events.list(page_size=0)
        assert self.refusal(refused.value) == (400, "INVALID_QUERY_PARAMS")

    def test_nothing_there(self, client: DodoPayments) -> None:
        with pytest.raises(dodopayments.NotFoundError) as refused:
            client.usage_events.retrieve("none")
        assert self.refusal(refused.value) == (404, "NOT_FOUND")

    def test_another_shape(self, client: DodoPayments) -> None:
        with pytest.raises(dodopayments.UnprocessableEntityError) as refused:
            ingest(client, event(timestamp="yesterday"))
        assert self.refusal(refused.value) == (422, "INVALID_REQUEST_BODY")
        with pytest.raises(dodopayments.UnprocessableEntityError):
            client.usage_events.ingest(events=[{"event_id": "e"}])

    def test_too_large(self, connect: Connect) -> None:
        with serving("--max-body-bytes", "1000") as url:
            with pytest.raises(dodopayments.APIStatusError) as refused:
                ingest(connect(url), *(event() for _ in range(100)))
            assert self.refusal(refused.value) == (413, "PAYLOAD_TOO_LARGE")

    @pytest.mark.parametrize(
        ("status", "error", "code"),
        [
            ("400", dodopayments.BadRequestError, "INVALID_REQUEST_PARAMETERS"),
            ("404", dodopayments.NotFoundError, "NOT_FOUND"),
            ("422", dodopayments.UnprocessableEntityError, "INVALID_REQUEST_BODY"),
        ],
    )
    def test_a_customer_who_does_not_exist(
        self, connect: Connect, status: str, error: type[dodopayments.APIStatusError], code: str
    ) -> None:
        with serving("--customers", "cus_known", "--unknown-customer", status) as url:
            client = connect(url)
            assert ingest(client, event(customer_id="cus_known")) == 1
            with pytest.raises(error) as refused:
                ingest(client, event(customer_id="cus_unknown"))
            assert self.refusal(refused.value) == (int(status), code)

    def test_too_many_requests(self, connect: Connect) -> None:
        with serving("--rate-limit") as url:
            client = connect(url)
            with pytest.raises(dodopayments.RateLimitError) as refused:
                for _ in range(101):  # of 100 a minute
                    client.meters.list()
            assert self.refusal(refused.value) == (429, "TOO_MANY_REQUESTS")
            assert int(refused.value.response.headers["retry-after"]) >= 1

            patient = client.with_options(max_retries=5)
            assert ingest(patient, event()) == 1, "the SDK waits for as long as it is told"

    def test_nobody_there(self, connect: Connect) -> None:
        with serving() as url:
            client = connect(url)
        with pytest.raises(dodopayments.APIConnectionError):
            client.usage_events.list()
