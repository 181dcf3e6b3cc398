"""Calls that go out through the proxy that the environment names."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

from conftest import serving

BILLING = "billing.example"
PROGRAM = f"""
from dodo_ingestion import Ingestion, track_api_call
with Ingestion(
    api_key="k", event_name="api_call", durability="memory",
    base_url="http://{BILLING}", allow_http=True,
) as ingestion:
    track_api_call(ingestion, customer_id="cus_proxied").wait_delivered(timeout=60)
"""


def pass_on(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while received := source.recv(65536):
            sink.sendall(received)
        sink.shutdown(socket.SHUT_WR)


def relay(client: socket.socket, to: tuple[str, int], asked: list[bytes]) -> None:
    """Speak SOCKS 5 (RFC 1928), without authentication, and take every host for the meter."""
    with client, client.makefile("rb") as said:
        _version, methods = said.read(2)
        said.read(methods)
        client.sendall(b"\x05\x00")
        assert said.read(4) == b"\x05\x01\x00\x03"  # connect to a name
        asked.append(said.read(said.read(1)[0]))
        said.read(2)  # the port
        client.sendall(b"\x05\x00\x00\x01" + bytes(6))
        with socket.create_connection(to) as server:
            threading.Thread(target=pass_on, args=(server, client), daemon=True).start()
            pass_on(client, server)


def test_a_socks_proxy_is_gone_through() -> None:
    asked: list[bytes] = []
    # Without a key it would answer to this machine's own names only.
    with serving("--key", "k") as meter, socket.create_server(("127.0.0.1", 0)) as proxy:
        address = urlsplit(meter.url)
        assert address.hostname
        assert address.port
        to = (address.hostname, address.port)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client, _ = proxy.accept()
                    threading.Thread(target=relay, args=(client, to, asked), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        url = f"socks5h://127.0.0.1:{proxy.getsockname()[1]}"
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "ALL_PROXY": url, "NO_PROXY": ""},
            check=True,
        )
    assert set(asked) == {BILLING.encode()}
