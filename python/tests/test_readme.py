"""The README's lines of Python, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import models
from conftest import Meter

README = Path(__file__).parents[2] / "README.md"
PACKAGE_README = Path(__file__).parents[1] / "README.md"


def test_the_readme_bills_two_calls(meter: Meter, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    environment = {
        "DODO_PAYMENTS_API_KEY": "readme",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_SPOOL_DIR": str(tmp_path),
        "DODO_INGESTION_EXIT_TIMEOUT": "100",
    }
    code = code.replace("cus_1", "cus_readme_1").replace("cus_2", "cus_readme_2")
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, **environment}
    )
    (single,) = meter.events("cus_readme_1")
    assert single["metadata"] == {"endpoint": "/v1/users/{id}", "status_code": 200}
    (batched,) = meter.events("cus_readme_2")
    assert batched["metadata"] == {"endpoint": "/v1/search"}


def test_the_packages_readme_bills_what_it_shows(meter: Meter, tmp_path: Path) -> None:
    sections = PACKAGE_README.read_text().split("\n## ")
    code = "import openai\nmessages = [{'role': 'user', 'content': 'Hello?'}]\n"
    code += f"response = {models.MESSAGE!r}\n"
    for section in sections:
        if section.startswith(("# dodo-ingestion", "Calls", "Language models")):
            code += "".join(re.findall(r"```python\n(.*?)```", section, re.DOTALL))
    code = code.replace("cus_1", "cus_package_readme").replace('api_key="…"', 'api_key="k"')
    with models.models() as url:
        environment = {
            "DODO_PAYMENTS_BASE_URL": meter.url,
            "DODO_INGESTION_SPOOL_DIR": str(tmp_path),
            "DODO_INGESTION_EXIT_TIMEOUT": "100",
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "k",
        }
        subprocess.run(
            [sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, **environment}
        )
    billed = [event["metadata"] for event in meter.events("cus_package_readme")]
    assert len(billed) == 8
    assert {"bytes": 4096, "stream_type": "video"} in billed
    assert {"durationSeconds": 2.5} in billed
    models_asked = {(each or {}).get("model"): (each or {}).get("totalTokens") for each in billed}
    assert models_asked == {None: None, "gpt-test": 120, "claude-test": 340}
