"""Memory per stored response, and the time from the start to the first answer."""

import concurrent.futures
import os
import socket
import statistics
import subprocess
import time

import peers
from machine import fail, free_port, on_cores, say


def per_response(stand, loads, name, count):
    """Growth of memory by `count` responses of 1 KiB, divided; of a server that is alone and fresh."""
    if name == "haproxy":
        return of_haproxy(stand, loads)
    server = stand.start(name)
    stand.prove_cached(server)
    loads.wrk(server, "/1k", 1)  # buffers and connections are paid for once
    loads.fill(server, f"/key/warm{{}}", 2000)
    server.forget_log()
    before = server.settled_memory()
    loads.fill(server, f"/miss/{loads.unique()}/{{}}", count)
    server.forget_log()
    bytes_each = (server.settled_memory() - before) / count
    stand.take_down(server)
    return bytes_each


def of_haproxy(stand, loads, megabytes=64):
    """Its cache is laid out at start: the size of a full one by the responses in it."""
    server = peers.haproxy(stand, megabytes)
    loads.fill(server, f"/miss/{loads.unique()}/{{}}", 2 * megabytes * 1024)
    with socket.socket(socket.AF_UNIX) as talk:
        talk.settimeout(30)
        talk.connect(str(server.place / "socket"))
        talk.sendall(b"show cache\n")
        text = b"".join(iter(lambda: talk.recv(65536), b"")).decode()
    held = text.count(" hash:") or fail(f"HAProxy shows no cache: {text[:200]}")
    stand.take_down(server)
    return megabytes * 2**20 / held


def memory(stand, loads, names, counts, clock):
    """{count: {server: bytes per response}}"""
    found = {}
    for count in counts:
        for name in names:
            if clock.is_over():
                say("versus: time is up, memory is not measured further")
                return found
            found.setdefault(count, {})[name] = per_response(stand, loads, name, count)
            say(f"memory  {name:13} {found[count][name]:8.0f} bytes, {count} responses")
    return found


def sites(count):
    return "".join(
        f'[[site]]\nname = "s{n}"\nhosts = ["s{n}.test", "*.s{n}.test"]\norigin = "main"\n'
        for n in range(count - 1))


def certificates(stand, count):
    """So many blocks of configuration, each with a certificate and a key of its own."""
    folder = stand.folder / "certificates"
    folder.mkdir(exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda n: stand.certificate(f"s{n}.test", folder), range(count))
        return "".join(f'[[certificate]]\nchain = "{chain}"\nkey = "{key}"\n' for key, chain in made)


def first_answer(stand, text, port, host):
    """Seconds from the start of the process to the end of its first answer, fetched from the origin."""
    place = stand.place("starting")
    (place / "atoll.toml").write_text(text)
    command = on_cores(stand.server_cores, [stand.options.atoll, "run", "--config", place / "atoll.toml"])
    request = f"GET /1k HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    with (place / "access.log").open("wb") as out:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"ATOLL_ADMIN_TOKEN": peers.TOKEN})
    try:
        while time.monotonic() - began < 60:
            try:
                with socket.create_connection(("127.0.0.1", port), 10) as talk:
                    talk.sendall(request)
                    answer = b"".join(iter(lambda: talk.recv(65536), b""))
                if not answer.startswith(b"HTTP/1.1 200"):
                    fail(f"the first answer is {answer[:200]!r}")
                return time.monotonic() - began
            except ConnectionError:
                time.sleep(0.0005)
        return fail(f"no answer within a minute: {(place / 'access.log').read_text()[-500:]}")
    finally:
        process.terminate()
        process.wait()


def starting(stand, count, with_certificates):
    """Seconds of the median of several starts with so many sites."""
    extra = sites(count) + (certificates(stand, with_certificates) if with_certificates else "")
    took = []
    for _ in range(3 if stand.options.quick else 5):
        port = free_port()
        text = peers.atoll_file(stand, extra, plain=port, tls=free_port(), admin=free_port())
        took.append(first_answer(stand, text, port, "s1.test"))
    say(f"start   {count} sites, {with_certificates} certificates: {statistics.median(took) * 1000:.0f} ms")
    return statistics.median(took)
