"""A client of TVM's RPC tracker: which boards there are, and the next free one.

The protocol is that of ``tvm.rpc.tracker``: a number that both sides say first, then JSON after its length. TVM's own
client tries for a minute where nobody listens, and cannot be asked to wait for a board for so long and no longer.
"""

from __future__ import annotations

import json
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from typing import Any

from secateur.ir import InputError, Unsupported
from secateur.ir.near import did_you_mean

MAGIC = 0x2F271
SUCCESS, REQUEST, SUMMARY = 0, 4, 6
PATIENCE = 10.0  # seconds for an answer that needs no waiting for a board
LONGEST = 1 << 20  # bytes of an answer
PORT = 9190  # of TVM's trackers, where none is given


@dataclass(frozen=True)
class Tracker:
    """Where boards are, and the key that those have which are meant."""

    host: str
    port: int
    key: str

    @staticmethod
    def parse(address: str, key: str) -> Tracker:
        """From HOST:PORT. Raises InputError."""
        host, _, port = address.rpartition(":") if ":" in address else (address, "", str(PORT))
        if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
            raise InputError(f"--tracker {address}: write HOST:PORT, such as 192.168.0.2:{PORT}")
        if not key:
            raise InputError(f"--tracker {address}: say with --key which boards; it is what their servers were given")
        return Tracker(host, int(port), key)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    def boards(self) -> int:
        """How many boards have the key now. Raises Unsupported where nobody or somebody else answers."""
        return self._keys()[self.key]

    def check(self) -> int:
        """How many boards there are. Raises Unsupported as ``boards`` does, InputError where none has the key."""
        keys = self._keys()
        if not keys[self.key]:
            there = ", ".join(f"{key} ({count})" for key, count in sorted(keys.items())) or "none at all"
            raise InputError(
                f"the tracker at {self} has no board under the key '{self.key}'{did_you_mean(self.key, keys)}; it has "
                f"{there}. A board registers with: python -m tvm.exec.rpc_server --tracker {self} --key {self.key}"
            )
        return keys[self.key]

    def _keys(self) -> Counter[str]:
        with self._connect() as line:
            status, summary = _ask(line, [SUMMARY], str(self))
            if status != SUCCESS:
                raise _strange(str(self))
            return Counter(str(one["key"]).removeprefix("server:") for one in summary["server_info"])

    def request(self, seconds: float) -> tuple[str, int, str] | None:
        """Address, port and password of the next free board; None if none is free within so many seconds."""
        with self._connect() as line:
            line.settimeout(seconds)
            try:
                status, place = _ask(line, [REQUEST, self.key, "", 1], str(self))
            except TimeoutError:
                return None
        if status != SUCCESS:
            raise _strange(str(self))
        return str(place[0]), int(place[1]), str(place[2])

    def _connect(self) -> socket.socket:
        try:
            line = socket.create_connection((self.host, self.port), PATIENCE)
        except OSError as error:
            raise Unsupported(
                f"no tracker answers at {self} ({error.strerror or error}); start one with: python -m "
                f"tvm.exec.rpc_tracker --host 0.0.0.0 --port {self.port}"
            ) from error
        try:
            line.sendall(struct.pack("<i", MAGIC))
            said = struct.unpack("<i", _receive(line, 4))[0]
        except OSError:
            said = None
        if said != MAGIC:
            line.close()
            raise _strange(str(self))
        return line


def _ask(line: socket.socket, question: list[object], where: str) -> Any:
    try:
        text = json.dumps(question).encode()
        line.sendall(struct.pack("<i", len(text)) + text)
        length = struct.unpack("<i", _receive(line, 4))[0]
        if not 0 < length <= LONGEST:
            raise _strange(where)
        return json.loads(_receive(line, length))
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        raise Unsupported(f"the tracker at {where} has gone ({error}); what was measured before is kept") from error


def _receive(line: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        piece = line.recv(size - len(found))
        if not piece:
            raise ConnectionError("it hung up")
        found += piece
    return found


def _strange(where: str) -> Unsupported:
    return Unsupported(f"what answers at {where} is not a tracker of TVM's; check --tracker")
