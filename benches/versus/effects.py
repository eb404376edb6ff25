"""What hits feel of a purge stream, a sweep, an eviction storm and reloads: rounds on and off by turns.

Hits of 1 KiB over 1,000 keys come at 5,000 a second, at moments that do not wait for answers. Off and
on differ in nothing but the disturbance: what has to be filled before is filled before both.
"""

import http.client
import threading
import time

import peers
from machine import say

HOT = {"path": "/key/{}", "keys": 1000}
LABELS = {
    "purges": "a stream of 1,000 purges/s",
    "sweep": "a sweep of what one purge killed",
    "eviction": "an eviction storm: 2,000 new responses/s into a full store",
    "reload": "a reload every half second",
}


def manage(server, path, body=None):
    """A command to the admin listener."""
    connection = http.client.HTTPConnection("127.0.0.1", server.admin, timeout=30)
    try:
        connection.request("POST", path, body=body, headers={
            "Authorization": f"Bearer {peers.TOKEN}", "Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}: {said[:300]}")


class Beside(threading.Thread):
    """Acts again and again beside the load until it is told to stop; what failed is raised then."""

    def __init__(self, act, every):
        super().__init__(daemon=True)
        self.act, self.every, self.stopped, self.failure = act, every, threading.Event(), None

    def run(self):
        while not self.stopped.wait(self.every):
            try:
                self.act()
            except Exception as failure:  # told where the load ends
                self.failure = failure
                return

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, kind, value, trace):
        self.stopped.set()
        self.join()
        if self.failure and kind is None:
            raise self.failure


class Effects:
    def __init__(self, stand, loads):
        self.stand, self.loads = stand, loads
        self.many = 20_000 if stand.options.quick else 100_000
        self.used = 0

    def hits(self, server, **more):
        return self.loads.paced(server, HOT["path"], self.stand.options.seconds, keys=HOT["keys"], **more)

    def fresh(self):
        """A number below which, and a million above which, no other run has keys."""
        self.used += 1
        return self.used * 1_000_000

    def purges(self, server, is_on):
        if not is_on:
            return self.hits(server)
        return self.hits(
            server, aside_to=f"127.0.0.1:{server.admin}", aside_path="/v1/purge", aside_rate=1000,
            aside_token=peers.TOKEN, aside_body='{"tags":["nobody-{}"]}', aside_from=self.fresh())

    def sweep(self, server, is_on):
        """As many responses lie there in both; on, one purge kills them a moment after the start."""
        tag = f"t{self.loads.unique()}"
        self.loads.fill(server, f"/tag/{tag}/{{}}", self.many)
        body = f'{{"tags":["{tag}"]}}'
        if not is_on:
            late = self.hits(server)
            manage(server, "/v1/purge", body)
            server.settled_memory()
            return late
        once = threading.Timer(0.3, manage, (server, "/v1/purge", body))
        once.start()
        late = self.hits(server)
        once.join()
        server.settled_memory()
        return late

    def eviction(self, server, is_on):
        if not is_on:
            return self.hits(server)
        return self.hits(
            server, aside_to=f"127.0.0.1:{server.plain}", aside_path=f"/miss/{self.loads.unique()}/{{}}",
            aside_rate=2000, aside_connections=32)

    def reload(self, server, is_on):
        if not is_on:
            return self.hits(server)
        file, count = server.place / "atoll.toml", 0

        def another():
            nonlocal count
            count += 1
            site = f'[[site]]\nname = "other"\nhosts = ["other-{count}.test"]\norigin = "main"\n'
            file.write_text(peers.atoll_file(self.stand, site, **server.keys))
            manage(server, "/v1/reload")

        with Beside(another, 0.5):
            return self.hits(server)

    def start(self, name):
        """One to be disturbed, warm; for evictions with a store that is full."""
        if name != "eviction":
            server = self.stand.start("atoll")
        else:
            server = self.stand.start("atoll", memory="128MiB")
            self.loads.fill(server, f"/miss/{self.loads.unique()}/{{}}", 2 * self.many)
        for _ in range(3):  # what is asked for more often stays
            self.loads.fill(server, HOT["path"], HOT["keys"])
        return server

    def measure(self, name, clock):
        """{"off": [latencies of each round], "on": [...]}"""
        server, found = self.start(name), {"off": [], "on": []}
        self.hits(server)
        for number in range(self.stand.options.effect_rounds):
            if number and clock.is_over():
                say(f"versus: time is up after {number} rounds of {name}")
                break
            # The order changes from round to round, so that neither side is always the first.
            for side in ("off", "on") if number % 2 == 0 else ("on", "off"):
                late = getattr(self, name)(server, side == "on")
                server.forget_log()
                found[side].append(late)
                say(f"round {number + 1}  {name:10} {side:4} p50 {late['p50']:.0f} us,"
                    f" p99 {late['p99']:.0f} us, p99.9 {late['p999']:.0f} us")
                time.sleep(0.2)
        self.stand.take_down(server)
        return found


def rise(found):
    """How far the median p99.9 of the rounds on lies above the highest of the rounds off, in milliseconds."""
    on = sorted(late["p999"] for late in found["on"])
    return (on[len(on) // 2] - max(late["p999"] for late in found["off"])) / 1000
