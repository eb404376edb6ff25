"""The stand on which servers are put: a folder in memory, a certificate, an origin, and who runs."""

import os
import re
import shutil
import subprocess
import time

import peers
from machine import Server, binary, fail, free_port, on_cores

SIZES = {"1 KiB": ("1k", 1024), "64 KiB": ("64k", 64 * 1024), "1 MiB": ("1m", 1024 * 1024)}


class Stand:
    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.server_cores, self.load_cores = [options.cores[0]], [options.cores[1]]
        self.running = []
        folder.chmod(0o755)  # some servers change to a user of their own
        self.key, self.chain = self.certificate("bench.test", folder)
        (folder / "both.pem").write_text(self.chain.read_text() + self.key.read_text())
        self.start_origin()

    def certificate(self, name, folder):
        key, chain = folder / f"{name}.key", folder / f"{name}.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={name}", "-addext",
             f"subjectAltName=DNS:{name},IP:127.0.0.1", "-keyout", key, "-out", chain],
            check=True, capture_output=True)
        key.chmod(0o644)
        return key, chain

    def place(self, name):
        """An empty folder; nothing of an earlier server of this name is left."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        for sub in ("cache", "temp", "files"):
            (place / sub).mkdir(parents=True)
        return place

    def launch(self, name, plain, tls, command, place, cores=None, **more):
        """Starts a server on the cores of servers; it is stopped at the end, whatever happens."""
        server = Server(name, plain, tls, on_cores(cores or self.server_cores, command), place, **more)
        self.running.append(server)
        return server.wait_ready()

    def start(self, server, /, **more):
        return peers.START[server](self, **more)

    def start_origin(self):
        """nginx with files in memory: all that servers under test have not stored."""
        port, place = free_port(), self.place("origin")
        for short, size in SIZES.values():
            (place / "files" / short).write_bytes(os.urandom(size // 2).hex().encode())
        number = "add_header X-Origin-Request $request_id;"
        fields = f'add_header Cache-Control "public, max-age=86400"; {number}'
        self.origin_port = port
        block = f"""
  access_log off;
  open_file_cache max=16;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {place}/files;
    etag on;
    default_type application/octet-stream;
    {fields}
    location = /counted {{ stub_status; }}
    location /miss/ {{ rewrite ^ /1k break; }}
    location /key/ {{ rewrite ^ /1k break; }}
    location /pass/ {{ add_header Cache-Control no-store; {number} rewrite ^ /1k break; }}
    location ~ ^/tag/([a-z0-9]+)/ {{ set $tag $1; {fields} add_header Surrogate-Key $tag; rewrite ^ /1k break; }}
  }}"""
        command = peers.nginx_command(place, block)
        self.origin = self.launch("origin", port, None, command, place, self.load_cores)

    def asked_of_origin(self):
        """Requests that the origin has had."""
        text = self.origin.ask("/counted")[1].decode()
        return int(re.search(r"\n\s*\d+ \d+ (\d+)", text).group(1))

    def prove_cached(self, server):
        """The second answer must be the first one's bytes, from the first one's origin request."""
        for short, size in SIZES.values():
            for _ in range(40):
                first = server.ask(f"/{short}")
                time.sleep(0.2)
                second = server.ask(f"/{short}")
                if first[0] == 200 and len(first[1]) == size and first == second and first[2]:
                    break
                time.sleep(0.2)  # some answer before their cache has come up
            else:
                fail(f"{server.name} does not answer /{short} from its cache")

    def prove_passed(self, server):
        """Two answers below /pass/ must come from two requests to the origin."""
        if server.ask("/pass/proof")[2] == server.ask("/pass/proof")[2]:
            fail(f"{server.name} stores what it should pass through")

    def take_down(self, server):
        server.stop()
        self.running.remove(server)
        shutil.rmtree(server.place, ignore_errors=True)

    def stop(self):
        for server in self.running:
            server.stop()


def floor_binary(options):
    """The floor program and its load generators, built if need be."""
    target = options.floor_target
    subprocess.run(
        ["nice", "-n", "19", "cargo", "build", "-q", "--release", "--locked", "--manifest-path",
         options.here / "floor/Cargo.toml", "--target-dir", target], check=True)
    return binary(str(target / "release/floor"))
