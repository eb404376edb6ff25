"""What atoll is to reach, and whether a run says that it does.

Only ratios of one run count, and each is taken within a round: a slow moment of the machine then hits
both sides. The best peer of a row is the one with the best median; the floor is no peer.
"""

import dataclasses
import math
import statistics

import effects

NEVER_PEERS = ("atoll", "floor", "canned")
COPIERS = ("haproxy", "varnish")


@dataclasses.dataclass
class Verdict:
    what: str
    wanted: str
    found: str
    met: bool


def per_cpu(figures):
    return figures.per_cpu


def latency(name):
    return lambda figures: figures.late[name]


def ratios(row, one, other, figure):
    return [figure(a) / figure(b) for a, b in zip(row[one], row[other])]


def best(row, figure, among=None, least=False):
    """The peer with the best median."""
    peers = [name for name in row if name not in NEVER_PEERS and (among is None or name in among)]
    pick = min if least else max
    return pick(peers, key=lambda name: statistics.median(map(figure, row[name])), default=None)


def beside(row, other, figure=per_cpu):
    """Median ratio of atoll to another, with the lowest and the highest; or nothing."""
    if other not in row or "atoll" not in row:
        return None
    found = [ratio for ratio in ratios(row, "atoll", other, figure) if not math.isnan(ratio)]
    return (statistics.median(found), min(found), max(found)) if found else None


def at_least(what, row, other, factor):
    """One that is met when atoll does at least so many times as much."""
    found = row and beside(row, other)
    if not found:
        return []
    span = f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})"
    return [Verdict(what, f"at least {factor:.2f} x {other}", span, found[0] >= factor)]


def speeds(results):
    """Goals of the rows that are compared by requests per second of processor time."""
    def row(name):
        return results.get(name) or {}

    def of_peer(name, label, factor, among=None):
        return at_least(label, row(name), best(row(name), per_cpu, among), factor)

    yield from of_peer("h1-1k", "HTTP/1.1 hit 1 KiB", 1.25)
    yield from at_least("HTTP/1.1 hit 1 KiB", row("h1-1k"), "floor", 0.7)
    yield from of_peer("h1-zipf", "100,000 keys, Zipf", 1.25)
    yield from at_least("TLS + HTTP/2 hit 1 KiB", row("h2-1k"), "floor", 0.9)
    yield from of_peer("h2-1k", "TLS + HTTP/2 hit 1 KiB (stretch)", 1.0)
    for size, label in (("64k", "64 KiB"), ("1m", "1 MiB")):
        for kind, how in (("h1", "plain"), ("h2", "TLS")):
            yield from of_peer(f"{kind}-{size}", f"hit {label}, {how}, of those that copy", 1.1, COPIERS)
            yield from of_peer(f"{kind}-{size}", f"hit {label}, {how}, of all (stretch)", 1.0)
    yield from of_peer("pass", "miss passed through", 1.0)
    yield from of_peer("miss", "miss stored", 0.8)
    yield from at_least("full handshakes, P-256", row("handshakes"), "floor", 0.9)
    yield from of_peer("handshakes", "full handshakes, P-256", 1.0)


def latencies(results):
    row = results.get("latency") or {}
    for name, label in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9")):
        other = best(row, latency(name), least=True)
        found = beside(row, other, latency(name))
        if found:
            yield Verdict(f"{label} at 5,000 requests/s", f"at most 1.00 x {other}",
                          f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})", found[0] <= 1.0)


def memories(memory):
    for count, found in memory.items():
        peers = {name: each for name, each in found.items() if name not in NEVER_PEERS}
        if "atoll" in found and peers:
            other = min(peers, key=peers.get)
            ratio = found["atoll"] / peers[other]
            for factor, note in ((0.9, ""), (0.75, " (stretch)")):
                yield Verdict(f"memory per 1 KiB response, {count:,}{note}", f"at most {factor:.2f} x {other}",
                              f"{ratio:.2f}", ratio <= factor)


def others(found):
    """Goals that need no peer: two workers, disturbances, starts."""
    if found.get("workers"):
        row = {"atoll": found["workers"]["two"], "one worker": found["workers"]["one"]}
        yield from at_least("two workers", row, "one worker", 0.95)
    for name, sides in (found.get("effects") or {}).items():
        if sides["on"] and sides["off"]:
            up = effects.rise(sides)
            rounds = f"{len(sides['on'])} rounds"
            yield Verdict(f"p99.9 of hits beside {effects.LABELS[name]}",
                          "rises by less than 1 ms beyond the rounds without", f"{up:+.2f} ms ({rounds})", up < 1.0)
    for (count, certificates), seconds in (found.get("starts") or {}).items():
        limit = 0.1 if count <= 10 else 1.0
        with_them = f", {certificates:,} certificates" if certificates else ""
        yield Verdict(f"start to first answer, {count:,} sites{with_them}", f"under {limit * 1000:.0f} ms",
                      f"{seconds * 1000:.0f} ms", seconds < limit)


def verdicts(found):
    """All of which this run says something."""
    return [*speeds(found["rows"]), *latencies(found["rows"]), *memories(found.get("memory") or {}),
            *others(found)]
