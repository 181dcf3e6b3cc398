"""What every contender is started with, and how it tells what it measured.

A contender is a process of its own, fresh in each round. The first argument says which one it is;
what it measured it prints as one line of JSON.
"""

import argparse
import json
from collections.abc import Callable, Mapping
from typing import TypeAlias

Measured: TypeAlias = dict[str, float]
Contenders: TypeAlias = Mapping[str, Callable[[argparse.Namespace], Measured]]

API_KEY = "sk_test_benchmark"


def run(contenders: Contenders) -> None:
    """Be the contender that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("contender", choices=contenders)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--dir", required=True, help="where a spool may be")
    parser.add_argument("--calls", type=int)
    parser.add_argument("--cpu", action="store_true", help="time threads by their processor time")
    options = parser.parse_args()
    print(json.dumps(contenders[options.contender](options)), flush=True)
