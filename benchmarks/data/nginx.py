"""nginx over TLS with curl: what a web server in C does with the same bytes. It verifies nothing.

It is fast enough to end before a span of time is over, so whole files are measured.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.data.orders import Order, Outcome, Ready, die_with_parent, play, say
from benchmarks.data.readings import cpu_seconds

START_SECONDS = 10.0
CONFIGURATION = """
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{port} ssl; root {folder}; ssl_protocols TLSv1.3; ssl_buffer_size 16k;
    ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem;
  }}
}}
"""


def missing() -> str | None:
    """Why it cannot take part, if so."""
    absent = [name for name in ("nginx", "curl") if _program(name) is None]
    return f"{' and '.join(absent)} not installed (apt install nginx-light curl)" if absent else None


def version() -> str:
    """As nginx prints it."""
    answer = subprocess.run([_program("nginx") or "nginx", "-v"], capture_output=True, text=True, check=True)
    return answer.stderr.strip().rpartition("/")[2]


def send(order: Order) -> None:
    """One nginx process, until killed."""
    port = _free_port(order.host)
    settings = Path(order.folder) / "nginx.conf"
    text = CONFIGURATION.format(folder=order.folder, host=order.host, port=port)
    settings.write_text(text, encoding="utf-8")
    command = [_program("nginx") or "nginx", "-p", order.folder, "-c", str(settings), "-e", "stderr"]
    server = subprocess.Popen(command, preexec_fn=die_with_parent)  # one thread here
    _wait_listening(order.host, port)
    say(Ready(port, server.pid))
    server.wait()


def receive(order: Order) -> None:
    """The payload in one curl, in equal shares on so many connections."""
    share = (Path(order.folder) / "payload").stat().st_size // order.connections
    url = f"https://{order.host}:{order.port}/payload"
    command = [_program("curl") or "curl", "-sSk", "--http1.1", "--max-time", str(order.limit_seconds)]
    command += ["-r", f"0-{share - 1}", "-w", "%{size_download} %{time_starttransfer} %{time_total}\\n"]
    command += ["--parallel", "--parallel-immediate", "--parallel-max", str(order.connections)]
    for _ in range(order.connections):
        command += ["-o", os.devnull, url]
    before = cpu_seconds(order.sender_pid)
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    taken = [[float(field) for field in line.split()] for line in answer.stdout.splitlines()]
    seconds = max(total for _, _, total in taken) - min(first for _, first, _ in taken)
    count = int(sum(size for size, _, _ in taken))
    sender = cpu_seconds(order.sender_pid) - before
    say(Outcome(count, seconds, sender, used.ru_utime + used.ru_stime))


def _program(name: str) -> str | None:
    return shutil.which(name, path=os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin")


def _free_port(host: str) -> int:
    with socket.socket() as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def _wait_listening(host: str, port: int) -> None:
    context = ssl._create_unverified_context()
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        with suppress(OSError), socket.create_connection((host, port), timeout=1.0) as plain:
            context.wrap_socket(plain).close()
            return
        time.sleep(0.02)
    raise TimeoutError(f"nginx did not listen on port {port} within {START_SECONDS:g} s")


if __name__ == "__main__":
    play({"send": send, "receive": receive})
