"""What the site tests share: processes that end with the test, certificates, one HTTPS client."""

import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
ATOLL = pathlib.Path(os.environ.get("ATOLL", ROOT / "target/release/atoll"))


def fail(text):
    sys.exit(f"FAILED: {text}")


def check(holds, text):
    print(f"  {'ok ' if holds else 'NOT'}  {text}", flush=True)
    if not holds:
        fail(text)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def binary(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return found or fail(f"{name} is missing")


def certificate(folder, *names):
    """A self-signed certificate for `names`; paths of chain and key."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    listed = ",".join(f"DNS:{name}" for name in names)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", "2", "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={listed}",
         "-addext", "basicConstraints=critical,CA:FALSE",
         "-keyout", key, "-out", chain], check=True, capture_output=True)
    return chain, key


class Processes:
    """Everything that was started; all of it ends with the block."""

    def __init__(self):
        self.running = []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in reversed(self.running):
            self.end(process)

    def start(self, command, ports=(), log=None, **more):
        output = open(log, "ab") if log else subprocess.DEVNULL
        process = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL,
                                   stdout=output, stderr=subprocess.STDOUT, **more)
        self.running.append(process)
        end = time.monotonic() + 20
        for port in ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if process.poll() is not None:
                        fail(f"{command[0]} ended with {process.returncode}: {tail(log)}")
                    if time.monotonic() > end:
                        fail(f"{command[0]} does not listen on {port}: {tail(log)}")
                    time.sleep(0.05)
        return process

    @staticmethod
    def end(process):
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def tail(log):
    return pathlib.Path(log).read_text(errors="replace")[-2000:] if log else ""


class Answer(http.client.HTTPResponse):
    """An answer that remembers the interim ones before it."""

    def _read_status(self):
        self.interim = []
        while True:
            found = super()._read_status()
            if found[1] >= 200:
                return found
            self.interim.append((found[1], http.client.parse_headers(self.fp)))


class Client:
    """One keep-alive connection, over TLS where `trust` names a certificate."""

    def __init__(self, port, host, trust=None):
        if trust == "anything":
            context = ssl._create_unverified_context()
        else:
            context = trust and ssl.create_default_context(cafile=trust)
        self.host, self.port, self.context = host, port, context
        self.connection = None

    def connect(self):
        # The name goes into SNI and Host, the address is ours.
        plain = socket.create_connection(("127.0.0.1", self.port), 30)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        connection.response_class = Answer
        connection.sock = (
            self.context.wrap_socket(plain, server_hostname=self.host) if self.context else plain)
        self.connection = connection

    def ask(self, path, method="GET", body=None, **fields):
        fields = {name.replace("_", "-"): value for name, value in fields.items()}
        for last in (False, True):
            try:
                if self.connection is None or self.connection.sock is None:
                    self.connect()
                self.connection.request(method, path, body=body, headers=fields)
                answer = self.connection.getresponse()
                answer.body = answer.read()
                return answer
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                self.connection = None
                if last:
                    raise

    def purge(self, token, **selector):
        answer = self.ask("/v1/purge", "POST", json.dumps(selector),
                          Authorization=f"Bearer {token}", Content_Type="application/json")
        check(answer.status == 200, f"purge {selector} -> {answer.status} {answer.body.decode().strip()[:120]}")
        return json.loads(answer.body)


def cache_status(answer):
    return answer.getheader("Cache-Status") or ""


def is_hit(answer):
    return re.match(r"atoll;.*\bhit\b", cache_status(answer)) is not None
