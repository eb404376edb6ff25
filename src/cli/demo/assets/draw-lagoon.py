#!/usr/bin/env python3
"""Draws lagoon.png: an atoll from above, from noise and a few depth contours.

Needs nothing but Python and gives the same bytes each time:

    ./draw-lagoon.py lagoon.png
"""

import math
import struct
import sys
import zlib

WIDTH, HEIGHT = 1600, 900


def lattice(x, y, seed):
    """A number from 0 to 1 that belongs to a point of the grid."""
    n = (x * 374761393 + y * 668265263 + seed * 2147483647) & 0xFFFFFFFF
    n = ((n ^ (n >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((n ^ (n >> 16)) & 0xFFFF) / 65535


def octave(cell, seed):
    """One layer of value noise over the whole picture."""
    columns, rows = WIDTH // cell + 2, HEIGHT // cell + 2
    grid = [[lattice(x, y, seed) for x in range(columns)] for y in range(rows)]
    ease = [t * t * (3 - 2 * t) for t in (i / cell for i in range(cell))]
    layer = []
    for y in range(HEIGHT):
        top, low = grid[y // cell], grid[y // cell + 1]
        ty = ease[y % cell]
        column = [a + (b - a) * ty for a, b in zip(top, low)]
        line = []
        for i in range(columns - 1):
            a, b = column[i], column[i + 1]
            line.extend(a + (b - a) * t for t in ease)
        layer.append(line[:WIDTH])
    return layer


def fractal(cells, seed):
    """Layers of noise, each finer and weaker than the one before; 0 to 1."""
    total, weight, out = 0.0, 1.0, [[0.0] * WIDTH for _ in range(HEIGHT)]
    for cell in cells:
        layer = octave(cell, seed + cell)
        for row, noise in zip(out, layer):
            for x in range(WIDTH):
                row[x] += noise[x] * weight
        total += weight
        weight *= 0.55
    return [[value / total for value in row] for row in out]


# Height above the reef flat -> colour. Deep water, slope, lagoon, reef, sand, palms.
WATER = [
    (-1.00, (4, 34, 66)),
    (-0.70, (6, 58, 97)),
    (-0.45, (9, 96, 132)),
    (-0.25, (19, 146, 166)),
    (-0.12, (70, 194, 196)),
    (-0.04, (150, 226, 212)),
    (0.00, (214, 238, 218)),
    (0.03, (246, 231, 193)),
    (0.10, (236, 211, 158)),
    (0.15, (120, 150, 84)),
    (0.30, (44, 104, 62)),
    (0.60, (20, 70, 46)),
]


def colour(height):
    height = max(-1.0, min(0.6, height))
    for (low, a), (high, b) in zip(WATER, WATER[1:]):
        if height <= high:
            t = (height - low) / (high - low)
            return [p + (q - p) * t for p, q in zip(a, b)]
    return WATER[-1][1]


def pixels():
    shape = fractal((320, 160, 80, 40), 11)
    detail = fractal((40, 20, 10, 5), 23)
    swell = fractal((64, 16, 8), 37)
    for y in range(HEIGHT):
        line = bytearray()
        for x in range(WIDTH):
            dx, dy = (x - WIDTH * 0.56) / 610, (y - HEIGHT * 0.53) / 345
            angle = math.atan2(dy, dx)
            wobble = 0.06 * math.sin(3 * angle + 0.7) + 0.035 * math.sin(7 * angle)
            radius = math.hypot(dx, dy) * (1 + wobble) + (shape[y][x] - 0.5) * 0.28
            fine = detail[y][x] - 0.5
            ring = (radius - 0.86) / 0.115
            if radius > 0.86:
                base = -0.03 - 1.05 * (1 - math.exp(-(max(0, ring - 0.55) ** 1.3) * 0.32))
            else:
                inside = min(1.0, (0.86 - radius) / 0.62)
                base = -0.03 - 0.40 * inside ** 0.8
                base += max(0.0, fine - 0.17) * 1.6 * (1 - 0.4 * inside) * min(1.0, inside * 12)
            # Islets stand on the ring where the coarse noise is high; a pass stays open below.
            land = math.exp(-ring * ring * 1.1) * max(0.0, 0.42 * math.sin(2 * angle + 2.4) + 0.30
                                                      + 0.34 * math.sin(5 * angle + 1.1))
            height = base + land * (0.52 + fine * 0.7) + fine * 0.10
            channel = math.exp(-(((angle - 1.9 - fine * 0.12) / 0.075) ** 2)) * math.exp(-ring * ring * 0.12)
            height -= 0.34 * channel
            red, green, blue = colour(height)
            # Surf on the outer edge, a little light on the waves.
            surf = math.exp(-((ring - 1.15 - fine * 1.3) * 4.2) ** 2) * (0.75 if height < 0 else 0.1)
            surf *= 1 - channel
            glint = (swell[y][x] - 0.5) * (26 if height < -0.02 else 12)
            shade = 1 - 0.16 * ((x / WIDTH - 0.56) ** 2 + (y / HEIGHT - 0.53) ** 2) * 2
            for value in (red, green, blue):
                value = (value + (255 - value) * surf + glint) * shade
                line.append(max(0, min(255, int(value))))
        yield bytes(line)


def filtered(line, above):
    """Each byte less its neighbour above (PNG filter 2): smooth pictures pack better."""
    return b"\x02" + bytes((a - b) & 0xFF for a, b in zip(line, above))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def main():
    above, packer, packed = bytes(WIDTH * 3), zlib.compressobj(9), []
    for line in pixels():
        packed.append(packer.compress(filtered(line, above)))
        above = line
    packed.append(packer.flush())
    with open(sys.argv[1], "wb") as out:
        out.write(b"\x89PNG\r\n\x1a\n")
        out.write(chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)))
        out.write(chunk(b"IDAT", b"".join(packed)))
        out.write(chunk(b"IEND", b""))


if __name__ == "__main__":
    main()
