"""Each server, configured as its documentation recommends for a cache in memory on one core.

Where two settings were tried, the faster one stayed: nginx answers 64 KiB some six times as fast over
loopback without `tcp_nopush`. Each writes its access log as it does by default or recommends: nginx
the combined format through a buffer, HAProxy its httplog on standard output, Varnish into shared
memory, Traffic Server in binary form, atoll JSON lines on standard output. The floor writes none.
"""

import os
import shutil

from machine import binary, free_port

TOKEN = "a-token-for-the-comparison-only"


def nginx_command(place, block):
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = "\n".join(
        f"  {kind}_temp_path {place}/temp/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (place / "nginx.conf").write_text(f"""
{user}
daemon off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {place}/pid;
error_log {place}/errors error;
events {{ worker_connections 4096; }}
http {{
{temporary}
  sendfile on;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
{block}
}}
""")
    return [binary("nginx"), "-c", place / "nginx.conf", "-p", place, "-e", place / "errors"]


def nginx(stand):
    plain, tls, place = free_port(), free_port(), stand.place("nginx")
    block = f"""
  access_log {place}/access.log combined buffer=64k flush=1s;
  open_file_cache max=1200000 inactive=1h;
  open_file_cache_valid 1h;
  proxy_cache_path {place}/cache levels=1:2 keys_zone=bench:512m max_size=16g inactive=1h use_temp_path=off;
  upstream origin {{ server 127.0.0.1:{stand.origin_port}; keepalive 64; keepalive_requests 1000000000; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  server {{
    listen 127.0.0.1:{plain} backlog=4096;
    listen 127.0.0.1:{tls} ssl http2 backlog=4096;
    http2_max_concurrent_streams 256;
    ssl_certificate {stand.chain};
    ssl_certificate_key {stand.key};
    ssl_protocols TLSv1.2 TLSv1.3;
    ssl_session_cache shared:tls:4m;
    location / {{
      proxy_pass http://origin;
      proxy_cache bench;
      proxy_cache_lock on;
      proxy_cache_use_stale error timeout updating;
      add_header Cache-Status $upstream_cache_status;
    }}
    location /pass/ {{ proxy_pass http://origin; }}
  }}"""
    return stand.launch("nginx", plain, tls, nginx_command(place, block), place, cache=place / "cache")


def haproxy(stand, megabytes=2048):
    plain, tls, place = free_port(), free_port(), stand.place("haproxy")
    (place / "haproxy.cfg").write_text(f"""
global
  nbthread 1
  maxconn 8192
  log stdout format raw local0 info
  stats socket {place}/socket mode 600 level admin
  tune.ssl.default-dh-param 2048
  tune.h2.max-concurrent-streams 256
defaults
  mode http
  log global
  option httplog
  option dontlognull
  http-reuse always
  timeout client 300s
  timeout server 30s
  timeout connect 3s
  timeout http-keep-alive 300s
cache bench
  total-max-size {megabytes}
  max-object-size 2097152
  max-age 86400
frontend edge
  bind 127.0.0.1:{plain}
  bind 127.0.0.1:{tls} ssl crt {stand.folder}/both.pem alpn h2,http/1.1
  use_backend passed if {{ path_beg /pass/ }}
  default_backend origin
backend origin
  http-request cache-use bench
  http-response cache-store bench
  server origin 127.0.0.1:{stand.origin_port} pool-max-conn 64
backend passed
  server origin 127.0.0.1:{stand.origin_port} pool-max-conn 64
""")
    command = [binary("haproxy"), "-db", "-f", place / "haproxy.cfg"]
    return stand.launch("haproxy", plain, tls, command, place)


def varnish(stand):
    """No TLS: that would be another program in front of it."""
    plain, place = free_port(), stand.place("varnish")
    (place / "edge.vcl").write_text(f"""vcl 4.1;
backend default {{ .host = "127.0.0.1"; .port = "{stand.origin_port}"; }}
sub vcl_recv {{ if (req.url ~ "^/pass/") {{ return (pass); }} }}
""")
    command = [
        binary("varnishd"), "-F", "-n", place / "work", "-a", f"127.0.0.1:{plain}",
        "-f", place / "edge.vcl", "-s", "malloc,8g", "-p", "thread_pools=1",
        "-p", "thread_pool_min=200", "-p", "default_ttl=0", "-p", "timeout_idle=300"]
    return stand.launch("varnish", plain, None, command, place)


def trafficserver(stand):
    plain, tls, place = free_port(), free_port(), stand.place("trafficserver")
    for name in ("etc", "log", "run"):
        (place / name).mkdir()
    shutil.copytree("/etc/trafficserver", place / "etc", dirs_exist_ok=True)
    origin = f"http://127.0.0.1:{stand.origin_port}"
    uncached = "@plugin=conf_remap.so @pparam=proxy.config.http.cache.http=0"
    texts = {
        "remap.config": f"map /pass/ {origin}/pass/ {uncached}\nmap / {origin}/\n",
        "storage.config": f"{place}/cache 8G\n",
        "ssl_multicert.config": f"dest_ip=* ssl_cert_name={stand.chain} ssl_key_name={stand.key}\n",
        "records.config": f"""
CONFIG proxy.config.http.server_ports STRING {plain} {tls}:ssl
CONFIG proxy.config.local_state_dir STRING {place}/run
CONFIG proxy.config.log.logfile_dir STRING {place}/log
CONFIG proxy.config.log.max_space_mb_for_logs INT 1000
CONFIG proxy.config.admin.user_id STRING nobody
CONFIG proxy.config.exec_thread.autoconfig INT 0
CONFIG proxy.config.exec_thread.limit INT 1
CONFIG proxy.config.accept_threads INT 0
CONFIG proxy.config.reverse_proxy.enabled INT 1
CONFIG proxy.config.url_remap.remap_required INT 1
CONFIG proxy.config.url_remap.pristine_host_hdr INT 1
CONFIG proxy.config.http.cache.http INT 1
CONFIG proxy.config.cache.ram_cache.size INT 4294967296
CONFIG proxy.config.cache.min_average_object_size INT 2048
CONFIG proxy.config.http2.max_concurrent_streams_in INT 256
CONFIG proxy.config.http.keep_alive_no_activity_timeout_in INT 300
CONFIG proxy.config.http.transaction_no_activity_timeout_in INT 300
""",
    }
    for name, text in texts.items():
        (place / "etc" / name).write_text(text)
    for path in (place, *place.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    command = [binary("traffic_server"), "--conf_dir", place / "etc"]
    return stand.launch(
        "trafficserver", plain, tls, command, place, cache=place / "cache",
        env={"PROXY_CONFIG_CONFIG_DIR": str(place / "etc")})


def atoll_file(stand, more="", workers=1, memory="8GiB", admin=0, plain=0, tls=0):
    """A configuration with everything on that is on by default."""
    return f"""
[node]
name = "bench"
workers = {workers}
[memory]
budget = "{memory}"
[admin]
address = "127.0.0.1:{admin}"
[[listener]]
address = "127.0.0.1:{plain}"
[[listener]]
address = "127.0.0.1:{tls}"
tls = true
[[certificate]]
chain = "{stand.chain}"
key = "{stand.key}"
[[origin]]
name = "main"
servers = ["http://127.0.0.1:{stand.origin_port}"]
[[site]]
name = "main"
hosts = ["*"]
origin = "main"
[[site.rule]]
path = "/pass"
pass = true
{more}"""


def atoll(stand, name="atoll", cores=None, **keys):
    ports = {"plain": free_port(), "tls": free_port(), "admin": free_port()}
    place = stand.place(name)
    (place / "atoll.toml").write_text(atoll_file(stand, **keys, **ports))
    command = [stand.options.atoll, "run", "--config", place / "atoll.toml"]
    server = stand.launch(
        name, ports["plain"], ports["tls"], command, place, cores, env={"ATOLL_ADMIN_TOKEN": TOKEN})
    server.admin, server.keys = ports["admin"], keys | ports
    return server


def floor(stand):
    plain, canned, tls, place = free_port(), free_port(), free_port(), stand.place("floor")
    command = [
        stand.options.floor, "serve", "--plain", f"127.0.0.1:{plain}", "--canned",
        f"127.0.0.1:{canned}", "--tls", f"127.0.0.1:{tls}", "--origin",
        f"127.0.0.1:{stand.origin_port}", "--chain", stand.chain, "--key", stand.key]
    server = stand.launch("floor", plain, tls, command, place)
    server.canned = canned
    return server


START = {"nginx": nginx, "haproxy": haproxy, "varnish": varnish, "trafficserver": trafficserver,
         "atoll": atoll, "floor": floor}
TITLES = {"nginx": "nginx", "haproxy": "HAProxy", "varnish": "Varnish",
          "trafficserver": "Traffic Server", "atoll": "atoll", "floor": "the floor"}
PROGRAMS = {"nginx": ("nginx", "-v"), "haproxy": ("haproxy", "-v"), "varnish": ("varnishd", "-V"),
            "trafficserver": ("traffic_server", "-V")}
