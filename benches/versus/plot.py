"""The plot: for each row a bar of each server, as a multiple of the best peer."""

import statistics
from html import escape

import goals
import peers

COLOURS = {"atoll": "#0b7285", "nginx": "#74b816", "haproxy": "#f08c00", "varnish": "#ae3ec9",
           "trafficserver": "#e03131", "floor": "#adb5bd"}
LEFT, WIDTH, BAR, GAP, TOP = 250, 470, 11, 16, 62
MOST = 2.5  # longer bars are cut and say so


def multiples(row, figure, least):
    """{server: how many times as good as the best peer}, medians of the ratios within rounds."""
    other = goals.best(row, figure, least=least)
    if not other:
        return {}
    found = {}
    for name in COLOURS:
        if name in row:
            ratio = statistics.median(goals.ratios(row, name, other, figure))
            found[name] = 1 / ratio if least and ratio else ratio
    return found


def groups(rows, found):
    for row in rows:
        results = found["rows"].get(row.name) or {}
        if row.latency:
            yield row.label + ", p99", multiples(results, goals.latency("p99"), True)
        else:
            yield row.label, multiples(results, goals.per_cpu, False)
    for count, each in (found.get("memory") or {}).items():
        best = min((size for name, size in each.items() if name not in goals.NEVER_PEERS), default=None)
        if best:
            yield f"memory per 1 KiB response, {count:,}", {
                name: best / each[name] for name in COLOURS if name in each}


def bars(top, label, each):
    yield (f'<text x="{LEFT - 10}" y="{top + len(each) * BAR / 2 + 4}" text-anchor="end" '
           f'font-weight="bold">{escape(label)}</text>')
    for place, (name, times) in enumerate(each.items()):
        y, wide = top + place * BAR, min(times, MOST) / MOST * WIDTH
        yield (f'<rect x="{LEFT}" y="{y}" width="{wide:.1f}" height="{BAR - 2}" fill="{COLOURS[name]}">'
               f'<title>{escape(peers.TITLES[name])}: {times:.2f}</title></rect>')
        yield f'<text x="{LEFT + wide + 4:.1f}" y="{y + BAR - 3}" fill="#495057">{times:.2f}</text>'


def legend(names):
    x = LEFT
    for name in names:
        yield f'<rect x="{x}" y="34" width="10" height="10" fill="{COLOURS[name]}"/>'
        yield f'<text x="{x + 14}" y="43">{escape(peers.TITLES[name])}</text>'
        x += 26 + 7 * len(peers.TITLES[name])


def svg(rows, found):
    drawn = [(label, each) for label, each in groups(rows, found) if each]
    names = [name for name in COLOURS if any(name in each for _, each in drawn)]
    body, top = [], TOP
    for label, each in drawn:
        body.extend(bars(top, label, each))
        top += len(each) * BAR + GAP
    one = LEFT + WIDTH / MOST
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 60} {top + 4}" '
        f'font-family="sans-serif" font-size="11">',
        f'<rect width="{LEFT + WIDTH + 60}" height="{top + 4}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="20" font-size="13">As a multiple of the best peer; longer is better</text>',
        *legend(names), *body,
        f'<line x1="{one}" y1="{TOP - 8}" x2="{one}" y2="{top}" stroke="#212529" stroke-dasharray="3 3"/>',
        "</svg>", ""])
