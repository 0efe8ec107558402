"""Chat templates: messages to the text that a model was trained to continue.

A template is a Jinja program from a model's author. It is rendered as transformers renders it, in a process
of its own that has a limit for memory, output and time, so that a hostile one can do no more than fail.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from ree.errors import PlatformError, ReeError
from ree.generation.messages import check_messages, check_tools, ordered
from ree.generation.template_worker import SECONDS, frame

MAX_TEMPLATE = 1 << 20
MAX_REQUEST = 16 << 20
MAX_OUTPUT = 1 << 20  # characters
RENDER_SECONDS = (
    10.0  # by the clock, where the machine is busy; of processor time the worker gives it SECONDS
)
START_SECONDS = 20.0


def template_id(template: str) -> str:
    """SHA-256 of a template, hexadecimal."""
    return hashlib.sha256(template.encode()).hexdigest()


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    date: str,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    special: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
    max_output: int = MAX_OUTPUT,
) -> str:
    """The text of a conversation.

    `date` is the ISO 8601 date, with a time or without, that the template sees as the present; `special` the
    texts of special tokens (bos_token, ...); `extra` more names that a template may read. ReeError, one line,
    for messages that are not a conversation, what the template itself refuses, and one that is malformed or
    over a limit. `max_output` is in characters.
    """
    try:
        datetime.fromisoformat(date)
    except ValueError as e:
        raise ReeError(f"the date is '{date[:40]}', expected one as 2026-01-31") from e
    names = {
        **(special or {}),
        **ordered(extra or {}, "extra"),
        "messages": check_messages(messages),
        "tools": check_tools(tools),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
    }
    try:
        request = frame({"template": template, "names": names, "date": date, "most": max_output})
    except (TypeError, ValueError, RecursionError) as e:
        raise ReeError(f"what the template is given is not JSON: {e}") from e
    if len(template) > MAX_TEMPLATE or len(request) > MAX_REQUEST:
        raise ReeError(
            f"template and messages have {len(request)} bytes, expected at most {MAX_REQUEST}"
        )
    answer = _worker.ask(request, max_output)
    text = answer.get("text")
    if not isinstance(text, str):
        raise ReeError(f"the chat template fails: {str(answer.get('error'))[:600]}")
    return text


class _Lost(Exception):
    """The worker died or did not answer in time."""


class _Worker:
    """The process that renders, started when it is first needed; one request at a time.

    A child of fork starts its own: it closes its copies of the other's ends and leaves the process alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def ask(self, request: bytes, most: int) -> dict[str, Any]:
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            try:
                assert self._link is not None
                deadline = time.monotonic() + RENDER_SECONDS
                self._link.settimeout(RENDER_SECONDS)
                self._link.sendall(request)
                answer = self._read(deadline, 12 * most + 4096)
                if answer.get("grown"):  # what it still holds would be missing to the next
                    self._stop()
                return answer
            except (_Lost, OSError) as e:
                assert self._process is not None
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.2)
                slow = isinstance(e, TimeoutError) or self._process.returncode == -signal.SIGXCPU
                self._stop()
                why = (
                    f"takes over {SECONDS} s"
                    if slow
                    else "fails: it broke the process that renders it"
                )
                raise ReeError(f"the chat template {why}") from e
            except BaseException:  # an interrupt, in the middle of an answer
                self._stop()
                raise

    def _start(self) -> None:
        self._stop()
        here, there = socket.socketpair()
        environment = {
            k: os.environ[k] for k in ("LD_LIBRARY_PATH", "PATH", "SYSTEMROOT") if k in os.environ
        }
        environment |= {"TZ": "UTC0", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"}
        command = [sys.executable, "-P", "-s", str(Path(__file__).with_name("template_worker.py"))]
        try:
            with there:
                self._process = subprocess.Popen(
                    command,
                    stdin=there.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                )
            self._link = here
            here.settimeout(START_SECONDS)
            self._read(time.monotonic() + START_SECONDS, 4096)
        except (_Lost, OSError) as e:
            here.close()
            self._stop()
            raise PlatformError(
                "the process that renders chat templates does not start",
                "pip install 'ree-ml[generate]'",
            ) from e

    def _read(self, deadline: float, most: int) -> dict[str, Any]:
        (length,) = struct.unpack(">I", self._exactly(4, deadline))
        if length > most:
            raise _Lost
        try:
            answer = json.loads(self._exactly(length, deadline))
        except ValueError as e:
            raise _Lost from e
        return answer if isinstance(answer, dict) else {}

    def _exactly(self, n: int, deadline: float) -> bytes:
        assert self._link is not None
        out = bytearray()
        while len(out) < n:
            self._link.settimeout(max(deadline - time.monotonic(), 1e-3))
            part = self._link.recv(min(n - len(out), 1 << 20))
            if not part:
                raise _Lost
            out += part
        return bytes(out)

    def _stop(self) -> None:
        if self._link is not None:
            self._link.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._link = self._process = None

    def close(self) -> None:
        with self._lock:
            self._stop()

    def forget(self) -> None:
        """In a child of fork: the process is the parent's."""
        if self._link is not None:
            with contextlib.suppress(OSError):
                self._link.close()
        if self._process is not None:
            self._process.returncode = 0  # else its end would be waited for here
        self._lock, self._process, self._link = threading.Lock(), None, None


_worker = _Worker()
atexit.register(_worker.close)
os.register_at_fork(after_in_child=_worker.forget)
