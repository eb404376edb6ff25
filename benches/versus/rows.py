"""Rows that compare work by work: interleaved rounds, each server after the other."""

import copy
import dataclasses
from typing import Callable

from machine import say

KEYS = 100_000


@dataclasses.dataclass(frozen=True)
class Row:
    name: str  # for --rows
    label: str  # for people
    work: Callable  # (loads, server) -> (seconds -> what Loads.measure takes)
    tls: bool = False
    hits: bool = True  # nearly nothing may reach the origin
    floor: bool = True  # whether the floor does this
    latency: bool = False  # whether it is the latency that counts


def plain(path):
    return lambda loads, server: lambda seconds: loads.wrk(server, path, seconds)


def http2(path):
    return lambda loads, server: lambda seconds: loads.h2load(server, path, seconds)


def each_once(path):
    return lambda loads, server: lambda seconds: loads.wrk(
        server, path, seconds, "miss.lua", [path + loads.unique()])


def zipf(loads, server):
    return lambda seconds: loads.wrk(server, "/key/", seconds, "zipf.lua", [KEYS])


def shakes(loads, server):
    return lambda seconds: loads.handshakes(server, "/1k", seconds)


def paced(loads, server):
    return lambda seconds: loads.paced(server, "/1k", seconds)


ROWS = [
    Row("h1-1k", "HTTP/1.1, hit, 1 KiB", plain("/1k")),
    Row("h1-zipf", "HTTP/1.1, hit, 100,000 keys, Zipf", zipf),
    Row("h2-1k", "TLS + HTTP/2, hit, 1 KiB", http2("/1k"), tls=True),
    Row("h1-64k", "HTTP/1.1, hit, 64 KiB", plain("/64k")),
    Row("h1-1m", "HTTP/1.1, hit, 1 MiB", plain("/1m")),
    Row("h2-64k", "TLS + HTTP/2, hit, 64 KiB", http2("/64k"), tls=True),
    Row("h2-1m", "TLS + HTTP/2, hit, 1 MiB", http2("/1m"), tls=True),
    Row("pass", "HTTP/1.1, miss, passed through", each_once("/pass/"), hits=False, floor=False),
    Row("miss", "HTTP/1.1, miss, stored", each_once("/miss/"), hits=False, floor=False),
    Row("handshakes", "full TLS 1.3 handshakes, P-256", shakes, tls=True),
    Row("latency", "HTTP/1.1, hit, 1 KiB, 5,000 requests/s", paced, latency=True),
]


def canned(server):
    """The floor's door of canned bytes, as a server of its own."""
    door = copy.copy(server)
    door.name, door.plain = "canned", server.canned
    return door


def takes_part(row, server):
    if server.name == "canned":
        return row.name == "h1-1k"
    return (server.tls or not row.tls) and (row.floor or server.name != "floor")


def warm(stand, loads, servers, rows):
    """Stores what is asked for later, and proves that it is."""
    for server in servers:
        stand.prove_cached(server)
        if any(row.name == "pass" for row in rows) and server.name != "floor":
            stand.prove_passed(server)
        if any(row.work is zipf for row in rows):
            loads.fill(server, "/key/{}", KEYS)
        for row in rows:
            # Over TLS it is another URL, and so another stored response.
            if row.tls and takes_part(row, server):
                row.work(loads, server)(1)


def told(row, figures):
    if row.latency:
        late = figures.late
        return f"p50 {late['p50']:.0f} us, p99 {late['p99']:.0f} us, p99.9 {late['p999']:.0f} us"
    return f"{figures.rate:10.0f}/s {figures.per_cpu:10.0f}/cpu-s"


def compare(stand, loads, names, rows, clock):
    """{row: {server: [Figures of each round]}}; ends early, between rounds, when time is up."""
    servers = [stand.start(name) for name in names]
    warm(stand, loads, servers, rows)
    doors = [door for server in servers
             for door in ([server, canned(server)] if server.name == "floor" else [server])]
    results = {row.name: {} for row in rows}
    for number in range(stand.options.rounds):
        if number and clock.is_over(0.6):
            say(f"versus: time is nearly up, {number} rounds instead of {stand.options.rounds}")
            break
        for row in rows:
            for server in (door for door in doors if takes_part(row, door)):
                figures = loads.measure(server, row.work(loads, server), stand.options.seconds)
                results[row.name].setdefault(server.name, []).append(figures)
                say(f"round {number + 1}  {row.name:10} {server.name:13} {told(row, figures)}"
                    f"  server {figures.server:.0%}, generator {figures.generator:.0%}")
                if row.hits and server.name != "canned" and figures.missed > figures.done / 200 + 10:
                    say(f"versus: {server.name} had {figures.missed} misses of {figures.done} in {row.name}")
    for server in servers:
        stand.take_down(server)
    return results


def workers(stand, loads, clock):
    """{"one": [Figures], "two": [...]}: one and two workers, both with both cores, which the generator shares."""
    cores = stand.server_cores + stand.load_cores
    sides = {"one": 1, "two": 2}
    servers = {side: stand.start("atoll", name=f"atoll-{side}", cores=cores, workers=count)
               for side, count in sides.items()}
    for server in servers.values():
        stand.prove_cached(server)
    results = {side: [] for side in sides}
    for number in range(stand.options.rounds):
        if number and clock.is_over(0.7):
            break
        for side, server in servers.items():
            def work(seconds, server=server):
                return loads.wrk(server, "/1k", seconds, cores=cores, threads=2)
            results[side].append(loads.measure(server, work, stand.options.seconds))
            say(f"round {number + 1}  workers    {side:13} {results[side][-1].per_cpu:10.0f}/cpu-s")
    for server in servers.values():
        stand.take_down(server)
    return results
