"""The local meter of users' own tests: in a pytest of their own, and without pytest."""

import re
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pytest

from dodo_ingestion import Ingestion, track_api_call
from dodo_ingestion.errors import ClosedError
from dodo_ingestion.testing import Meter

pytest_plugins = ["pytester"]

PACKAGE = Path(__file__).parents[1]
WITHIN = 60

SHOP = """
import flask
from dodo_ingestion.wsgi import MeterMiddleware

def create_app(ingestion):
    app = flask.Flask(__name__)
    app.route("/v1/search")(lambda: "found")
    app.wsgi_app = MeterMiddleware(app.wsgi_app, ingestion=ingestion, customer="x-customer-id")
    return app
"""


@pytest.fixture
def installed(pytester: pytest.Pytester) -> pytest.Pytester:
    """Have the package's entry points where pytest finds them, as `pip` would install them."""
    manifest = (PACKAGE / "pyproject.toml").read_text("utf-8")
    (entry,) = re.findall(r"^\[project\.entry-points\.pytest11\]\n(.+)$", manifest, re.MULTILINE)
    information = pytester.mkdir("dodo_ingestion-0.dist-info")
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: dodo-ingestion\nVersion: 0")
    (information / "entry_points.txt").write_text("[pytest11]\n" + entry.replace('"', ""))
    return pytester


def assert_passes(pytester: pytest.Pytester, tests: str, *, passed: int) -> None:
    pytester.makepyfile(tests)
    pytester.runpytest_subprocess("-Werror", timeout=WITHIN).assert_outcomes(passed=passed)


def test_each_test_has_an_empty_meter(installed: pytest.Pytester) -> None:
    tests = """
        from dodo_ingestion import track_api_call

        seen = []

        def bill_three(meter):
            assert meter.events() == []
            ingestion = meter.connect(linger=60)
            for number in range(3):
                track_api_call(ingestion, customer_id="cus_1", metadata={"number": number})
            events = meter.events(customer="cus_1", at_least=3, timeout=60)
            assert [event.metadata["number"] for event in events] == [0, 1, 2]
            meter.fault("status=503")
            track_api_call(ingestion, customer_id="cus_left")
            seen.append(meter.url)

        def test_one(dodo_meter):
            bill_three(dodo_meter)

        def test_another(dodo_meter):
            bill_three(dodo_meter)

        def test_it_was_the_same_server():
            assert len(set(seen)) == 1
    """
    assert_passes(installed, tests, passed=3)


def test_the_readme(installed: pytest.Pytester) -> None:
    readme = (PACKAGE / "README.md").read_text("utf-8")
    (section,) = (each for each in readme.split("\n## ") if each.startswith("Your own tests"))
    (tests,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (installed.path / "shop.py").write_text(SHOP)
    assert_passes(installed, tests, passed=2)


def test_without_the_program_the_test_says_how_to_get_it(
    installed: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DODOMETER_BIN", str(installed.path / "nothing"))
    installed.makepyfile("def test_it(dodo_meter): pass")
    result = installed.runpytest_subprocess(timeout=WITHIN)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*FileNotFoundError*nothing*")


def test_other_tests_run_where_the_package_refuses_to_be_imported(
    installed: pytest.Pytester,
) -> None:
    without_the_gil = "import sys; sys._is_gil_enabled = lambda: False"
    (installed.path / "sitecustomize.py").write_text(without_the_gil)
    installed.makepyfile("""
        def test_of_another_thing():
            pass

        def test_of_a_bill(dodo_meter):
            pass
    """)
    result = installed.runpytest_subprocess(timeout=WITHIN)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines("*ImportError: dodo_ingestion needs the GIL*")


def test_without_pytest() -> None:
    program = """
        import sys
        from dodo_ingestion import track_api_call
        from dodo_ingestion.testing import Meter

        with Meter() as meter:
            track_api_call(meter.connect(), customer_id="cus_1")
            (event,) = meter.events(at_least=1, timeout=60)
            assert event.customer_id == "cus_1"
        forgotten = Meter().start()
        assert "pytest" not in sys.modules
        print(forgotten.url)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    url = subprocess.check_output(command, text=True, timeout=WITHIN).strip()
    with Meter() as other:
        other.url = url
        with pytest.raises(OSError, match="refused"):
            other.bill()


@pytest.fixture(scope="module")
def running() -> Iterator[Meter]:
    with Meter() as meter:
        yield meter


@pytest.fixture
def local(running: Meter) -> Meter:
    running.reset()
    return running


def test_events_are_chosen(local: Meter) -> None:
    ingestion = local.connect(event_name="call")
    for number in range(10):
        track_api_call(
            ingestion,
            customer_id=f"cus_{number % 2}",
            event_name="other" if number == 9 else None,
            metadata={"endpoint": "/v1/users", "status_code": 200, "good": number < 5},
        )
    assert len(local.events(at_least=10, timeout=WITHIN)) == 10
    assert len(local.events(customer="cus_1")) == 5
    assert len(local.events(customer="cus_1", event_name="call")) == 4
    assert len(local.events(endpoint="/v1/users", status_code=200, good=True)) == 5
    assert local.events(status_code=500) == []
    for name in ("customer_id", "event_id", "timestamp"):
        pair: dict[str, Any] = {name: "cus_1"}
        with pytest.raises(TypeError, match=f"{name}: is no metadata"):
            local.events(**pair)
    assert {each["customer_id"]: each["calls"] for each in local.bill()["customers"]} == {
        "cus_0": 5,
        "cus_1": 5,
    }


def test_events_that_do_not_come(local: Meter) -> None:
    ingestion = local.connect()
    local.fault("status=503")
    track_api_call(ingestion, customer_id="cus_1")
    with pytest.raises(TimeoutError, match="0 of 1 events came"):
        local.events(at_least=1, timeout=0.2)
    local.reset()
    assert len(local.events(at_least=1, timeout=WITHIN)) == 1
    local.fault("unknown_customer=cus_2")
    track_api_call(ingestion, customer_id="cus_2")
    with pytest.raises(TimeoutError, match="the API has refused calls: see `stats`"):
        local.events(at_least=2, timeout=2)


def test_a_client_waits_for_no_turn(local: Meter) -> None:
    ingestion = local.connect()
    for number in range(100):
        track_api_call(ingestion, customer_id=f"cus_{number}")
        local.events(customer=f"cus_{number}", at_least=1)


def test_more_events_than_an_answer_holds(local: Meter) -> None:
    count = 10_500
    ingestion = local.connect()
    for number in range(count):
        track_api_call(ingestion, customer_id="cus_1", metadata={"number": number})
    events = local.events(at_least=count, timeout=WITHIN)
    assert sorted(int(event.metadata["number"]) for event in events) == list(range(count))


def test_a_client_of_ones_own(local: Meter) -> None:
    with Ingestion(
        api_key="k",
        environment="test_mode",
        event_name="call",
        base_url=local.url,
        durability="memory",
        linger=0.05,
    ) as ingestion:
        track_api_call(ingestion, customer_id="cus_own")
        (event,) = local.events(customer="cus_own", at_least=1, timeout=WITHIN)
    assert event.event_name == "call"


def test_a_fault_that_does_not_exist(local: Meter) -> None:
    with pytest.raises(ValueError, match="names no fault"):
        local.fault("nonsense=1")


def listens(url: SplitResult) -> bool:
    try:
        socket.create_connection((url.hostname, url.port)).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("end", ["", "os._exit(0)", "os.kill(os.getpid(), signal.SIGTERM)"])
def test_a_meter_that_is_not_stopped_ends_with_its_process(end: str) -> None:
    script = f"""
        import os, signal
        from dodo_ingestion.testing import Meter
        meter = Meter().start()
        print(meter.url, flush=True)
        {end}
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        check=False,
        stdout=subprocess.PIPE,
        text=True,
        timeout=WITHIN,
    )
    until = time.monotonic() + WITHIN
    while listens(urlsplit(done.stdout.strip())):
        assert time.monotonic() < until, "it goes on"
        time.sleep(0.02)


def test_a_program_that_does_not_serve() -> None:
    with pytest.raises(RuntimeError, match="does not serve: it ended with 2"):
        Meter("--nonsense").start()


def test_a_program_that_has_ended_is_named() -> None:
    meter = Meter().start()
    ingestion = meter.connect()
    meter._end()
    with pytest.raises(ConnectionError, match=f"the meter at {meter.url} has ended"):
        meter.events()
    meter.stop()
    with pytest.raises(ClosedError):
        track_api_call(ingestion, customer_id="cus_1")
