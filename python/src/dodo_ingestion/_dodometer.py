"""Where `dodometer` is: the local meter that tests bill to."""

import os
import shutil
import sysconfig


def find_dodometer() -> str:
    """Find the program: that of `DODOMETER_BIN`, or of this environment, or of `PATH`."""
    named = os.environ.get("DODOMETER_BIN")
    if named:
        return named
    # Python may run without its environment's programs on PATH.
    places = [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    found = shutil.which("dodometer", path=os.pathsep.join(places))
    if found is None:
        raise FileNotFoundError(
            "dodometer is not installed: `pip install dodometer`, or set DODOMETER_BIN to it"
        )
    return found
