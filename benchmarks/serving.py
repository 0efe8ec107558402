"""What serving adds to generation, on SmolLM2-135M or another model: python benchmarks/serving.py [ART.ree].

Starts `ree serve` as a process of its own. Decoding over HTTP beside the library's, the sides in turns; eight
clients against one; many clients at once, whose answers are compared with those of one alone, and the server's
memory meanwhile. Writes benchmarks/results/serving.json.
"""

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from run import cpu_name

from ree.generation.generator import Generator, Request
from ree.generation.model import LanguageModel, compile_model
from ree.generation.models import smollm2_path
from ree.generation.request import Sampling

RESULTS = Path(__file__).parent / "results" / "serving.json"
TURNS = 5
DRAWN = 96  # tokens of an answer whose speed is measured
CLIENTS, REQUESTS, ALL = 32, 50, 2000
SHORT = 8  # tokens of an answer of the many


class Server:
    """`ree serve` on a port of this machine."""

    def __init__(self, path, *options):
        command = [
            sys.executable,
            "-P",
            "-m",
            "ree",
            "serve",
            f"m={path}",
            "--port",
            "0",
            "--slots",
            "8",
            "--json",
            *options,
        ]
        start = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        lines = [self.process.stdout.readline()]
        while lines[-1] != "}\n":
            lines.append(self.process.stdout.readline())
        self.host = json.loads("".join(lines))["url"].removeprefix("http://")
        connection = http.client.HTTPConnection(self.host)
        status = 503
        while status == 503:
            time.sleep(0.05)
            connection.request("GET", "/health")
            response = connection.getresponse()
            status, _ = response.status, response.read()
        self.ready_s = time.perf_counter() - start

    def memory(self):
        """Resident memory, MB."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(x for x in text.splitlines() if x.startswith("VmRSS")).split()[1]) / 1024

    def close(self):
        self.process.terminate()
        self.process.wait()


class Client:
    """One connection that is kept."""

    def __init__(self, server):
        self.connection = http.client.HTTPConnection(server.host, timeout=600)

    def post(self, **fields):
        self.connection.request("POST", "/v1/completions", json.dumps({"model": "m"} | fields))
        return self.connection.getresponse()

    def complete(self, **fields):
        response = self.post(**fields)
        value = json.loads(response.read())
        assert response.status == 200, value
        return value

    def stream(self, **fields):
        """(seconds to the first token, seconds of a token behind it) as they arrive."""
        start = time.perf_counter()
        response, times = self.post(stream=True, **fields), []
        while line := response.readline():
            if b'"token_ids":[' in line.replace(b'"prompt_token_ids":[', b""):
                times.append(time.perf_counter())
        return times[0] - start, (times[-1] - times[0]) / (len(times) - 1)


def asked(i, most=DRAWN):
    """A request of its own for each i."""
    return {"prompt": f"This is story number {i}. Once upon a time there was", "seed": i, "max_tokens": most,
            "temperature": 0.8, "ignore_eos": True, "return_token_ids": True}  # fmt: skip


def by_library(generator, i):
    """(seconds of a token, tokens) of the same request without a server."""
    f = asked(i)
    times, tokens = [], []
    request = Request(
        prompt=f["prompt"],
        sampling=Sampling(temperature=0.8, seed=i),
        max_tokens=DRAWN,
        stop_tokens=(),
    )
    for piece in generator.stream(request, lambda receipt: None):
        times.append(time.perf_counter())
        tokens.append(piece.token)
    return (times[-1] - times[0]) / (len(times) - 1), tokens


def together(server, jobs):
    """(seconds, results by client) of clients that each run their list of jobs, a connection each."""
    out, failed = [None] * len(jobs), []

    def one(n):
        try:
            client = Client(server)
            out[n] = [job(client) for job in jobs[n]]
        except Exception as e:
            failed.append(e)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(len(jobs))]
    start = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - start, out


def eight_over_one(server):
    """Tokens a second of eight clients over those of one, in turns."""

    def seconds(n, turn):
        jobs = [[lambda c, i=i: c.complete(**asked(100 * turn + i))] for i in range(n)]
        return together(server, jobs)[0]

    seconds(8, 99)
    one, eight = zip(*((seconds(1, t), seconds(8, t)) for t in range(TURNS)), strict=True)
    return DRAWN / statistics.median(one), 8 * DRAWN / statistics.median(eight)


def many(server):
    """Clients that ask the same requests, each in its own order: how many answers differ, and the memory."""
    client = Client(server)
    want = [client.complete(**asked(i, SHORT))["choices"] for i in range(REQUESTS)]
    assert len({json.dumps(w) for w in want}) == REQUESTS
    memory, wrong, answered = [], [], 0
    lock = threading.Lock()

    def job(i):
        def ask(client):
            nonlocal answered
            got = client.complete(**asked(i, SHORT))["choices"]
            with lock:
                answered += 1
                if got != want[i]:
                    wrong.append(i)
                if answered % 100 == 0:
                    memory.append(round(server.memory(), 1))

        return ask

    jobs = [[job((7 * n + i) % REQUESTS) for i in range(REQUESTS)] for n in range(CLIENTS)]
    taken, _ = together(server, jobs)
    left = ALL - CLIENTS * REQUESTS
    together(server, [[job((n + i) % REQUESTS) for i in range(left // 8)] for n in range(8)])
    assert answered == ALL
    return {
        "clients": CLIENTS,
        "requests_each": REQUESTS,
        "seconds": taken,
        "requests_per_s": CLIENTS * REQUESTS / taken,
        "answers": answered,
        "answers_that_differ": len(wrong),
        "memory_mb_by_100": memory,
        "growth_mb_of_the_last_1000": memory[-1] - memory[len(memory) // 2 - 1],
    }


def main():
    if len(sys.argv) > 1:
        path = Path(sys.argv[1])
    else:
        path = Path(tempfile.mkdtemp(prefix="ree-bench-")) / "s.ree"
        compile_model(smollm2_path()).save(path)
    model = LanguageModel.load(path)
    server = Server(path)
    try:
        out = {"model": model.settings.name, "cpu": cpu_name(), "load_at_start": os.getloadavg()[0],
               "ready_s": server.ready_s}  # fmt: skip
        client, generator = Client(server), Generator(model, positions=512)
        for name, prompt in (("first", "It was a dark night"), ("second", "Nobody had seen her")):
            out[f"{name}_request_s"] = client.stream(**asked(0, 2) | {"prompt": prompt})[0]
        by_library(generator, 0)
        ours, theirs = [], []
        for i in range(TURNS):
            theirs.append(client.stream(**asked(i))[1])
            seconds, tokens = by_library(generator, i)
            ours.append(seconds)
            assert client.complete(**asked(i))["choices"][0]["token_ids"] == tokens
        out["library_tokens_per_s"] = 1 / statistics.median(ours)
        out["http_tokens_per_s"] = 1 / statistics.median(theirs)
        out["http_over_library"] = statistics.median(
            a / b for a, b in zip(ours, theirs, strict=True)
        )
        del generator
        one, eight = eight_over_one(server)
        out |= {
            "one_client_tokens_per_s": one,
            "eight_clients_tokens_per_s": eight,
            "eight_over_one": eight / one,
        }
        out["many"] = many(server)
    finally:
        server.close()
    RESULTS.write_text(json.dumps(out, indent=1) + "\n")
    print(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
