"""The load generators, and what one run of one of them against one server came to."""

import dataclasses
import json
import re
import subprocess
import time

from machine import HERE, binary, fail, generators_cpu, on_cores, say


@dataclasses.dataclass
class Figures:
    """What one run came to. Shares are of one core."""

    done: int
    rate: float  # per second, on the clock
    per_cpu: float  # per second of processor time of the server
    generator: float  # share that the load generator took: near 1, and the clock's rate is its own
    server: float  # share that the server took
    missed: int = 0  # requests that reached the origin
    late: dict = dataclasses.field(default_factory=dict)  # latencies in microseconds


class Loads:
    def __init__(self, stand):
        self.stand, self.counter = stand, 0
        self.suites = {}

    def unique(self):
        """A word that no other run has."""
        self.counter += 1
        return f"{int(time.time())}x{self.counter}"

    def generate(self, command, seconds, cores=None, patience=120):
        cores = cores or self.stand.load_cores
        run = subprocess.run(
            on_cores(cores, command), capture_output=True, text=True, timeout=seconds + patience)
        if run.returncode:
            fail(f"{command[0]} failed: {run.stdout}{run.stderr}")
        return run.stdout

    def wrk(self, server, path, seconds, script=None, arguments=(), cores=None, threads=1):
        command = [binary("wrk"), f"-t{threads}", "-c64", f"-d{seconds}s", "-H", "Host: bench.test"]
        if script:
            command += ["-s", HERE / script]
        command += [f"http://127.0.0.1:{server.plain}{path}", "--", *arguments]
        text = self.generate(command, seconds, cores)
        if "Non-2xx" in text or "Socket errors" in text:
            say(f"versus: {server.name} {path}: {text}")
        return int(re.search(r"(\d+) requests in", text).group(1))

    def h2load(self, server, path, seconds):
        command = [binary("h2load"), "-t1", "-c32", "-m16", "-D", seconds,
                   "--tls13-ciphers", "TLS_AES_128_GCM_SHA256", "--connect-to", f"127.0.0.1:{server.tls}",
                   f"https://bench.test:{server.tls}{path}"]
        text = self.generate(command, seconds, patience=8)
        failed = re.search(r"(\d+) failed, (\d+) errored, (\d+) timeout", text)
        if any(int(number) for number in failed.groups()):
            say(f"versus: {server.name} {path}: {failed.group(0)}")
        suite = re.search(r"Cipher: (\S+)", text)
        self.suites[server.name] = suite.group(1) if suite else "?"
        return int(re.search(r"(\d+) succeeded", text).group(1))

    def floor(self, command, expected, /, **arguments):
        """Runs one of the floor program's own generators."""
        words = [f"--{name.replace('_', '-')}={value}".split("=", 1) for name, value in arguments.items()]
        text = self.generate([self.stand.options.floor, command, *sum(words, [])], expected)
        told = json.loads(text)
        bad = told["bad"] + told.get("aside", {}).get("bad", 0)
        if bad:
            say(f"versus: {command} {arguments}: {bad} requests had no answer, or not 200: {text.strip()}")
        return told

    def fill(self, server, path, count, start=0):
        """Asks for each of so many paths once."""
        return self.floor(
            "fill", count / 500, to=f"127.0.0.1:{server.plain}", path=path, **{"from": start}, count=count)

    def paced(self, server, path, seconds, rate=5000, **more):
        return self.floor("paced", seconds, to=f"127.0.0.1:{server.plain}", path=path, rate=rate,
                          seconds=seconds, **more)

    def handshakes(self, server, path, seconds):
        return self.floor("handshakes", seconds, to=f"127.0.0.1:{server.tls}", path=path, seconds=seconds,
                          connections=16)["done"]

    def measure(self, server, work, seconds):
        """Runs `work`, which tells how many were done, or a table with `done` and latencies.

        A generator that does not end is ended and begins anew: h2load now and then misses its own time.
        """
        for _again in range(5):
            try:
                return self.measure_once(server, work, seconds)
            except subprocess.TimeoutExpired as late:
                say(f"versus: {server.name}: {late.cmd[-1]} did not end, once more")
        return self.measure_once(server, work, seconds)

    def measure_once(self, server, work, seconds):
        spent, used, asked = server.cpu(), generators_cpu(), self.stand.asked_of_origin()
        began = time.monotonic()
        told = work(seconds)
        elapsed = time.monotonic() - began
        spent, used = server.cpu() - spent, generators_cpu() - used
        missed = self.stand.asked_of_origin() - asked - 1
        server.forget_log()
        late = told if isinstance(told, dict) else {}
        done = late.get("done", told)
        per_cpu = done / spent if spent else float("nan")
        return Figures(done, done / seconds, per_cpu, used / elapsed, spent / elapsed, missed, late)
