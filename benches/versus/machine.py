"""The machine under the comparison: cores, ports, programs, and what a process costs."""

import http.client
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
PACKAGES = "nginx haproxy varnish trafficserver wrk nghttp2-client openssl util-linux"


def fail(text):
    sys.exit(f"versus: {text}")


def say(text):
    print(text, file=sys.stderr, flush=True)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def found(name):
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def binary(name):
    return found(name) or fail(f"{name} is missing: apt-get install {PACKAGES}")


def on_cores(cores, command):
    return ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]


def generators_cpu():
    """Processor time of all load generators so far: nothing else is waited for while one runs."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def family(pid):
    """The process and all below it."""
    known, todo = [], [pid]
    while todo:
        pid = todo.pop()
        known.append(pid)
        for children in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
            try:
                todo.extend(int(child) for child in children.read_text().split())
            except (FileNotFoundError, ProcessLookupError):
                pass
    return known


class Server:
    """One running server: its processes, its ports, where its cache and its log lie."""

    def __init__(self, name, plain, tls, command, place, cache=None, env=None):
        self.name, self.plain, self.tls = name, plain, tls
        self.place, self.cache, self.log = place, cache, place / "access.log"
        self.admin = None
        with self.log.open("ab") as out, (place / "errors").open("ab") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                env=os.environ | (env or {}))

    def wait_ready(self):
        end = time.monotonic() + 30
        ports = [port for port in (self.plain, self.tls) if port]
        while time.monotonic() < end:
            if self.process.poll() is not None:
                said = (self.place / "errors").read_text(errors="replace")[-800:]
                fail(f"{self.name} ended with {self.process.returncode} instead of serving: {said}")
            try:
                for port in ports:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                return self
            except OSError:
                time.sleep(0.05)
        self.stop()
        return fail(f"{self.name} did not listen on {ports} in time")

    def cpu(self):
        """Seconds of processor time that its processes have taken."""
        total = 0
        for pid in family(self.process.pid):
            try:
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self):
        """Bytes of its processes, shared pages counted once, and of its cache directory."""
        total = 0
        for pid in family(self.process.pid):
            text = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += int(re.search(r"^Pss:\s+(\d+)", text, re.M).group(1)) * 1024
        if self.cache:
            for folder, _, files in os.walk(self.cache):
                for name in files:
                    total += os.lstat(os.path.join(folder, name)).st_blocks * 512
        return total

    def settled_memory(self):
        """The same, once it does not move by more than a part in two hundred within a second."""
        before = self.memory()
        for _ in range(20):
            time.sleep(1)
            now = self.memory()
            if abs(now - before) < before / 200:
                return now
            before = now
        return before

    def forget_log(self):
        """Logs lie in memory; one that is read by nobody is emptied, and appended to from there."""
        for log in (self.log, self.place / "log/squid.blog"):
            if log.exists():
                os.truncate(log, 0)

    def ask(self, path, host="bench.test"):
        connection = http.client.HTTPConnection("127.0.0.1", self.plain, timeout=10)
        try:
            connection.request("GET", path, headers={"Host": host})
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.getheader("X-Origin-Request")
        finally:
            connection.close()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Clock:
    """How long the comparison may go on."""

    def __init__(self, minutes):
        self.began, self.minutes = time.monotonic(), minutes

    def spent(self):
        return (time.monotonic() - self.began) / 60

    def is_over(self, share=1.0):
        return self.spent() > self.minutes * share
