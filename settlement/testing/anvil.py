"""A local Ethereum node, anvil of Foundry, for tests: installed once by npm into the cache, started on a free
port."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ree.settlement.keys import Key, role_key
from ree.settlement.node import Node

VERSION = "1.7.1"
PACKAGE = f"@foundry-rs/anvil-linux-amd64@{VERSION}"
SHA256 = "10c1c727d6c1de973aeb160e59875b9a9a23464d6e74149ee8abb30b3500311b"  # of the program
INSTALL, START = 300.0, 60.0  # seconds
ETHER = 10**18


class Missing(Exception):
    """There is no anvil here, and why."""


def anvil_program() -> Path:
    """Path of anvil, installed if need be. Missing where that is impossible; ValueError for another file than
    the one known."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = home / "ree" / f"anvil-{VERSION}"
    program = folder / "node_modules" / "@foundry-rs" / "anvil-linux-amd64" / "bin" / "anvil"
    if not program.exists():
        _install(folder)
    found = hashlib.sha256(program.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"'{program}' is not the anvil that is known: SHA-256 {found}")
    return program


def _install(folder: Path) -> None:
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        raise Missing(f"anvil is for Linux on x86-64, this is {platform.platform()}")
    npm = shutil.which("npm")
    if npm is None:
        raise Missing("npm is missing")
    part = folder.with_name(f"{folder.name}.{os.getpid()}")  # another process may be at it
    part.mkdir(parents=True, exist_ok=True)
    flags = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--prefix", str(part))
    try:
        done = subprocess.run([npm, "install", *flags, PACKAGE], capture_output=True, text=True,
                              timeout=INSTALL)  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Missing(f"npm did not install {PACKAGE} in {INSTALL:.0f} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise Missing(f"npm could not install {PACKAGE}: {last[0]}")
    try:
        part.rename(folder)
    except OSError:  # the other was first
        shutil.rmtree(part)


class Anvil:
    """A node in a process of its own, with the clock of the chain in the hands of the test. A context
    manager."""

    name = "anvil"

    def __init__(self, *options: str) -> None:
        program = anvil_program()
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(
            [program, "--silent", "--port", str(port), "--hardfork", "osaka", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        try:
            self.web3 = self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> Any:
        from web3 import Web3

        web3, end = Web3(Web3.HTTPProvider(self.url)), time.monotonic() + START
        while time.monotonic() < end and self._process.poll() is None:
            if web3.is_connected():
                return web3
            time.sleep(0.05)
        raise RuntimeError(f"anvil does not answer at {self.url}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Anvil:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:  # fmt: skip
        self.close()

    def rpc(self, method: str, *params: Any) -> Any:
        """Result of a method of the node."""
        answer = self.web3.provider.make_request(method, list(params))
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return answer["result"]

    def connect(self, key: Key | None) -> Node:
        """A client of this node, over HTTP."""
        return Node.connect(self.url, key)

    def account(self, name: str) -> Node:
        """A node with a key made from a name, and ether."""
        key = role_key(name)
        self.rpc("anvil_setBalance", key.address, hex(100 * ETHER))
        return self.connect(key)

    @property
    def now(self) -> int:
        """Timestamp of the latest block."""
        return int(self.web3.eth.get_block("latest")["timestamp"])

    def next_at(self, timestamp: int) -> None:
        """The next block is to have this timestamp."""
        self.rpc("evm_setNextBlockTimestamp", timestamp)

    def wait_until(self, timestamp: int) -> None:
        """Mine a block at a time in the future; one that has passed is no error."""
        if timestamp > self.now:
            self.next_at(timestamp)
            self.rpc("evm_mine")

    def snapshot(self) -> Any:
        """A point to come back to with `revert`, once."""
        return self.rpc("evm_snapshot")

    def revert(self, snapshot: Any) -> None:
        self.rpc("evm_revert", snapshot)

    def drop(self, blocks: int) -> None:
        """Put empty blocks in the place of the newest."""
        self.rpc("anvil_reorg", blocks, [])
