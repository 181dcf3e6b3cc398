"""The README's lines of Python, run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

from conftest import Meter

README = Path(__file__).parents[2] / "README.md"


def test_the_readme_bills_two_calls(meter: Meter, tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    environment = {
        "DODO_PAYMENTS_API_KEY": "readme",
        "DODO_PAYMENTS_BASE_URL": meter.url,
        "DODO_INGESTION_SPOOL_DIR": str(tmp_path),
    }
    code = code.replace("cus_1", "cus_readme_1").replace("cus_2", "cus_readme_2")
    subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=60, env={**os.environ, **environment}
    )
    (single,) = meter.events("cus_readme_1")
    assert single["metadata"] == {"endpoint": "/v1/users/{id}", "status_code": 200}
    (batched,) = meter.events("cus_readme_2")
    assert batched["metadata"] == {"endpoint": "/v1/search"}
