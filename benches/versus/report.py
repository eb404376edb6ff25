"""The tables in Markdown, and their place in the document."""

import os
import pathlib
import re
import statistics
import subprocess

import effects
import goals
import peers
from machine import binary, fail

BEGIN = "<!-- versus: what is between these marks is written by benches/versus/run --write -->"
END = "<!-- versus: end -->"


def number(value):
    return f"{value:,.0f}".replace(",", " ")


def median(row, figure):
    return statistics.median(map(figure, row))


def table(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|---|" + "---:|" * (len(head) - 1)
    for cells in rows:
        yield "| " + " | ".join(cells) + " |"
    yield ""


def version(name, options):
    command = peers.PROGRAMS.get(name)
    command = [binary(command[0]), command[1]] if command else [options.atoll, "--version"]
    run = subprocess.run(command, capture_output=True, text=True)
    text = run.stdout + run.stderr
    if name == "trafficserver":
        text = text[text.find("Traffic Server"):]
    return re.search(r"\d[\w.+~-]*", text).group(0)


def machine(options, names, suites):
    cpu = re.search(r"model name\s*:\s*(.*)", pathlib.Path("/proc/cpuinfo").read_text())
    said = ", ".join(f"{peers.TITLES[name]} {version(name, options)}" for name in names if name != "floor")
    used = sorted(set(suites.values()))
    return (f"{cpu.group(1).strip() if cpu else os.uname().machine}, {os.cpu_count()} cores, "
            f"Linux {os.uname().release}; {said}; {options.seconds} s a load; "
            f"TLS suite of all: {', '.join(used) or 'none'}.")


def ordered(names, row):
    """Servers of a row in the order of the columns."""
    return [name for name in names if name in row]


def speeds(rows, found, names):
    """Requests per second of processor time, and atoll beside the best peer and the floor."""
    yield "Requests per second of processor time (medians), and atoll's ratios (median, lowest to highest):\n"
    shown = []
    for row in rows:
        results = found.get(row.name)
        if not results or row.latency:
            continue
        cells = [number(median(results[name], goals.per_cpu)) if name in results else "" for name in names]
        other = goals.best(results, goals.per_cpu)
        for against in (other, "floor"):
            ratio = goals.beside(results, against)
            label = peers.TITLES.get(against, "") + " " if against == other else ""
            cells.append(f"{label}{ratio[0]:.2f} ({ratio[1]:.2f} to {ratio[2]:.2f})" if ratio else "")
        rounds = max(len(figures) for figures in results.values())
        shown.append([row.label, *cells, str(rounds)])
    heads = [peers.TITLES[name] for name in names]
    yield from table(["load", *heads, "/ best peer", "/ floor", "rounds"], shown)
    canned = (found.get("h1-1k") or {}).get("canned")
    if canned:
        yield f"A loop that reads and writes canned bytes: {number(median(canned, goals.per_cpu))}.\n"


def saturation(rows, found, names):
    """How busy the generator was: near 100 % what came out on the clock is the generator's own limit."""
    yield ("Requests per second on the clock, with the share of a core that server and load generator "
           "took. Where the generator is near 100 % the clock shows the generator:\n")
    shown = []
    for row in rows:
        results = found.get(row.name)
        if not results or row.latency:
            continue
        cells = []
        for name in names:
            if name in results:
                runs = results[name]
                cells.append(f"{number(median(runs, lambda f: f.rate))} ({median(runs, lambda f: f.server):.0%}, "
                             f"{median(runs, lambda f: f.generator):.0%})")
            else:
                cells.append("")
        shown.append([row.label, *cells])
    yield from table(["load", *(peers.TITLES[name] for name in names)], shown)


def latencies(found, names):
    row = found.get("latency")
    if not row:
        return
    names = ordered(names, row)
    yield ("Latency at 5,000 requests/s in microseconds, from the moment at which a request was due "
           "(medians of the rounds):\n")
    yield from table(["", *(peers.TITLES[name] for name in names)], [
        [label, *(number(median(row[name], goals.latency(each))) for name in names)]
        for each, label in (("p50", "p50"), ("p99", "p99"), ("p999", "p99.9"))])


def footprints(memory, names):
    if not memory:
        return
    names = [name for name in names if any(name in each for each in memory.values())]
    yield "Memory per stored response of 1 KiB, in bytes, all in:\n"
    yield from table(["responses", *(peers.TITLES[name] for name in names)], [
        [f"{count:,}", *(number(each[name]) if name in each else "" for name in names)]
        for count, each in memory.items()])


def disturbances(found):
    found = {name: sides for name, sides in (found or {}).items() if sides["on"] and sides["off"]}
    if not found:
        return
    yield "p99.9 of hits at 5,000 requests/s in microseconds, median (lowest to highest):\n"

    def span(rounds):
        late = [each["p999"] for each in rounds]
        return f"{number(statistics.median(late))} ({number(min(late))} to {number(max(late))})"
    yield from table(["beside", "off", "on", "rounds of each"], [
        [effects.LABELS[name], span(sides["off"]), span(sides["on"]), str(len(sides["on"]))]
        for name, sides in found.items()])


def aims(found):
    verdicts = goals.verdicts(found)
    if not verdicts:
        return
    yield f"Goals: {sum(each.met for each in verdicts)} of {len(verdicts)} are met.\n"
    yield from table(["goal", "wanted", "found", "met"], [
        [each.what, each.wanted, each.found, "yes" if each.met else "**no**"] for each in verdicts])


def lines(options, rows, found, names, suites):
    measured = [name for name in names if any(name in row for row in found["rows"].values())]
    yield machine(options, names, suites) + "\n"
    yield from aims(found)
    if measured:
        yield from speeds(rows, found["rows"], measured)
        yield from saturation(rows, found["rows"], measured)
        yield from latencies(found["rows"], measured)
    yield from footprints(found.get("memory"), names)
    yield from disturbances(found.get("effects"))


def write(document, text, picture):
    """Puts the text between the marks of the document, and the picture beside it."""
    before = document.read_text()
    if BEGIN not in before or END not in before:
        fail(f"{document} lacks the marks {BEGIN!r} and {END!r}")
    head, rest = before.split(BEGIN, 1)
    plot = document.with_suffix(".svg")
    plot.write_text(picture)
    image = f"![As a multiple of the best peer]({plot.name})\n"
    document.write_text(f"{head}{BEGIN}\n\n{image}\n{text.strip()}\n\n{END}{rest.split(END, 1)[1]}")
