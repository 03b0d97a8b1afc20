"""Forbids and records attempts to reach other machines.

With this folder on PYTHONPATH and NO_NETWORK_LOG set, in a process and all its Python children.
"""

import os
import sys
import traceback

LOOPBACK = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "")
SEEN: list[str] | None = None
_LOG = os.environ.get("NO_NETWORK_LOG")
_BY_NAME = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
_BY_ADDRESS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def _hook(event: str, arguments: tuple) -> None:
    if SEEN is None or event not in _BY_NAME + _BY_ADDRESS:
        return
    address = arguments[0] if event in _BY_NAME else arguments[1]
    if event in _BY_ADDRESS:
        if not isinstance(address, tuple):  # a socket of this machine's file system
            return
        address = address[0]
    host = address.decode() if isinstance(address, bytes) else address
    if host is None or host in LOOPBACK:
        return
    callers = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_stack()[:-1]]
    line = f"{event} {host} from {' < '.join(callers[:-12:-1])}"
    SEEN.append(line)
    if _LOG:
        with open(_LOG, "a") as file:
            file.write(line + "\n")
    raise OSError(f"no network in this test: {host}")


sys.addaudithook(_hook)
if _LOG:
    SEEN = []
