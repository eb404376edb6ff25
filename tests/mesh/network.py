"""Three points of presence, each a network namespace, with a relay of packets between them that takes
its time; made by the test, and gone with it."""

import ctypes
import fcntl
import heapq
import itertools
import os
import queue
import re
import select
import struct
import subprocess
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000

# One way, in seconds.
DELAYS = {("a", "b"): 0.020, ("a", "c"): 0.040, ("b", "c"): 0.030}


def delay(one, other):
    return DELAYS[tuple(sorted((one, other)))]


def run(*command, quiet=False):
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and not quiet:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done


def permitted():
    """Why namespaces cannot be made here; empty where they can."""
    if os.geteuid() != 0:
        return "namespaces need root"
    if not os.path.exists("/dev/net/tun"):
        return "there is no /dev/net/tun"
    name = f"atoll-try-{os.getpid()}"
    done = run("ip", "netns", "add", name, quiet=True)
    run("ip", "netns", "del", name, quiet=True)
    return done.stderr.strip()


class Pop:
    """One namespace. The nodes have addresses of their own on its loopback device; what is not here
    goes through the relay."""

    def __init__(self, name, number):
        self.name, self.number = name, number
        self.space = f"atoll-{os.getpid()}-{name}"
        run("ip", "netns", "add", self.space)
        self.tun = self.enter(self.open_tun)
        self.ip("link", "set", "lo", "up")
        self.ip("link", "set", "tun0", "mtu", "1500", "up")
        self.ip("addr", "add", f"10.77.{number}.254/32", "dev", "tun0")
        for host in (1, 2, 3, 100):
            self.ip("addr", "add", f"{self.address(host)}/32", "dev", "lo")
        self.ip("route", "add", "10.77.0.0/16", "dev", "tun0")

    def ip(self, *words):
        run("ip", "-n", self.space, *words)

    def address(self, host):
        return f"10.77.{self.number}.{host}"

    def enter(self, work):
        """What `work` gives, done inside the namespace by a thread that then ends."""
        answer = queue.Queue()

        def inside():
            try:
                answer.put((True, self.join() or work()))
            except BaseException as error:
                answer.put((False, error))

        threading.Thread(target=inside, daemon=True).start()
        good, value = answer.get()
        if not good:
            raise value
        return value

    def join(self):
        """Moves the calling thread into the namespace."""
        with open(f"/run/netns/{self.space}") as space:
            if LIBC.setns(space.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")

    def thread(self, work, *arguments):
        """A thread that lives inside the namespace."""

        def inside():
            self.join()
            work(*arguments)

        made = threading.Thread(target=inside, daemon=True)
        made.start()
        return made

    def open_tun(self):
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", b"tun0", IFF_TUN | IFF_NO_PI))
        return tun

    def lose(self, percent):
        """Drops that share of what comes from other points of presence; 0 for none, 100 for a cut, both ways.

        On arrival, as a network does: of a packet that is dropped before it leaves the sender knows.
        """
        self.filter("flush ruleset")
        if percent == 0:
            return
        self.filter("add table ip loss")
        ways = {"input": "iifname", "output": "oifname"} if percent == 100 else {"input": "iifname"}
        chance = "" if percent == 100 else f"numgen random mod 100 < {percent}"
        for way, name in ways.items():
            self.filter(f"add chain ip loss {way} {{ type filter hook {way} priority 0; }}")
            self.filter(f"add rule ip loss {way} {name} tun0 {chance} counter drop")

    def lost(self):
        """Packets that were dropped since the last change."""
        told = run("ip", "netns", "exec", self.space, "nft", "list", "ruleset")
        return sum(int(count) for count in re.findall(r"counter packets (\d+)", told.stdout))

    def filter(self, rule):
        run("ip", "netns", "exec", self.space, "nft", rule)

    def remove(self):
        os.close(self.tun)
        run("ip", "netns", "del", self.space, quiet=True)


class Relay:
    """Carries packets from one namespace to another after the delay between them, in order."""

    def __init__(self, pops):
        self.pops = {pop.number: pop for pop in pops}
        self.ends = False
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def carry(self):
        tuns = {pop.tun: pop for pop in self.pops.values()}
        waiting, order = [], itertools.count()
        while not self.ends:
            now = time.monotonic()
            patience = min(max(waiting[0][0] - now, 0), 0.05) if waiting else 0.05
            for tun in select.select(list(tuns), [], [], patience)[0]:
                self.take(tun, tuns[tun], waiting, order)
            now = time.monotonic()
            while waiting and waiting[0][0] <= now:
                _, _, tun, packet = heapq.heappop(waiting)
                try:
                    os.write(tun, packet)
                except OSError:
                    pass

    def take(self, tun, source, waiting, order):
        while True:
            try:
                packet = os.read(tun, 2048)
            except OSError:
                return
            target = self.pops.get(packet[18]) if len(packet) >= 20 and packet[0] >> 4 == 4 else None
            if target and target is not source:
                due = time.monotonic() + delay(source.name, target.name)
                heapq.heappush(waiting, (due, next(order), target.tun, packet))

    def stop(self):
        self.ends = True
        self.thread.join()
