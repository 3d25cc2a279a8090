"""Measures a root that comes over mutual TLS (root=imprint:) beside curl with the same certificate, from the same nginx, over the same
link: the loopback, which is faster than any network, so that the programs are what counts. Both write into memory; the agent also
verifies and mounts. The configuration of nginx is that of docs/root.md. bench.py imports it.

As a program, `root.py ROOT COMMAND…`: runs a command in a root of its own, in which the kernel command line is another one."""

import os
import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

MIB = 1024 * 1024
NGINX = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "imprint/nginx/usr/sbin/nginx"
CONFIGURATION = """daemon off;
master_process off;
user root;
pid %(work)s/nginx.pid;
error_log %(work)s/nginx.log;
events {}
http {
    access_log off;
    sendfile on;
    client_body_temp_path %(work)s;
    proxy_temp_path %(work)s;
    fastcgi_temp_path %(work)s;
    uwsgi_temp_path %(work)s;
    scgi_temp_path %(work)s;
    server {
        listen 127.0.0.1:%(port)d ssl;
        ssl_certificate %(tls)s/chain.pem;
        ssl_certificate_key %(tls)s/private/key.pem;
        ssl_client_certificate %(tls)s/ca.pem;
        ssl_verify_client on;
        ssl_verify_depth 2;
        root %(images)s;
        gzip off;
    }
}
"""
RECORD = 'name = "%s"\nsubject = ["CN=%s"]\nsans = ["%s"]\nusages = ["clientAuth", "serverAuth"]\n'


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def credentials(agent, host, state, name, san, out):
    """Certificate and key of a record, as a node has them."""
    record = out.parent / f"{name}.toml"
    record.write_text(RECORD % (name, name, san))
    run(host, "--dir", state, "node", "add", record)
    payload = out.parent / f"{name}.cbor"
    run(host, "--dir", state, "payload", name, "--credentials", "--as", "cbor", "-o", payload)
    run(agent, "enroll", "--payload", payload, "--out", out)


def image(folder, size):
    """A squashfs of this size that is not compressed: random bytes would not get smaller."""
    (folder / "tree").mkdir()
    (folder / "tree/etc").mkdir()
    with open(folder / "tree/data", "wb") as data:
        for _ in range(size // MIB):
            data.write(os.urandom(MIB))
    run("mksquashfs", folder / "tree", folder / "root.sqfs", "-quiet", "-no-progress", "-noD", "-noI", "-noF", "-noX")
    return folder / "root.sqfs"


def serve(work, port, tls, images):
    """nginx with these images; `tls` is the folder of an identity, as the agent leaves it."""
    (work / "nginx.conf").write_text(CONFIGURATION % {"work": work, "port": port, "tls": tls, "images": images})
    server = subprocess.Popen([str(NGINX), "-c", str(work / "nginx.conf"), "-p", str(work)])
    probe = ["curl", "-sk", f"https://127.0.0.1:{port}/"]
    while server.poll() is None and subprocess.run(probe, stdout=subprocess.DEVNULL).returncode:
        time.sleep(0.02)
    if server.poll() is not None:
        sys.exit(f"root.py: nginx ended with {server.returncode}: {(work / 'nginx.log').read_text()}")
    return server


def machine(root, agent, node, cmdline):
    """The root of a machine: the agent, its identity, and the folders that a boot has."""
    for name in ("bin", "proc", "dev", "run/imprint", "sysroot"):
        (root / name).mkdir(parents=True)
    run("cp", agent, root / "bin/imprint")
    run("cp", "-a", f"{node}/.", root / "run/imprint")
    (root / "cmdline").write_text(cmdline + "\n")


def inside(root, *command):
    """Called in a mount namespace of its own."""
    for words in (["-t", "proc", "proc", f"{root}/proc"], ["--bind", f"{root}/cmdline", f"{root}/proc/cmdline"],
                  ["--rbind", "/dev", f"{root}/dev"]):
        subprocess.run(["mount", *words], check=True)
    start = time.perf_counter()
    done = subprocess.run(["/usr/bin/time", "-f", "%M", "chroot", root, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True)
    took = time.perf_counter() - start
    if done.returncode != 0 or not os.path.exists(f"{root}/sysroot/data"):
        sys.exit(f"root.py: {command} ended with {done.returncode}: {done.stderr}")
    print(took, done.stderr.split()[-1])


def measure(record, agent, host, runs):
    """`runs(WHOLE, QUICK)`: how many, in a whole bench and in a quick one."""
    size, turns = runs(200, 16) * MIB, runs(9, 2)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as work, socket.create_server(("127.0.0.1", 0)) as reserved:
        work, port = pathlib.Path(work), reserved.getsockname()[1]
        reserved.close()
        state = work / "state"
        # Nobody asks it here, and no node may have its address.
        run(host, "--dir", state, "init", "--url", "https://192.0.2.1/.well-known/est")
        for name, san in (("images", "ip:127.0.0.1"), ("node1", "dns:node1.example.org")):
            credentials(agent, host, state, name, san, work / name)
        (work / "images-files").mkdir()
        whole = image(work / "images-files", size)
        digest = run("sha256sum", whole).split()[0]
        url = f"https://127.0.0.1:{port}/root.sqfs"
        machine(work / "machine", agent, work / "node1", f"root=imprint:{url} imprint.root-sha256={digest}")
        node, copy = work / "node1", work / "copy"
        curl = ["curl", "-sSf", "--cert", node / "chain.pem", "--key", node / "private/key.pem", "--cacert", node / "ca.pem", "-o", copy,
                url]
        ours = ["unshare", "--mount", sys.executable, __file__, work / "machine", "/bin/imprint", "root"]
        server = serve(work, port, work / "images", work / "images-files")
        try:
            mine, theirs, peak = [], [], 0
            for _ in range(turns):
                start = time.perf_counter()
                run(*curl)
                theirs.append(time.perf_counter() - start)
                copy.unlink()
                took, memory = map(float, run(*ours).split())
                mine.append(took)
                peak = max(peak, memory / 1024)
        finally:
            server.terminate()
            server.wait()
    rate = [whole_size / MIB / statistics.median(times) for whole_size, times in ((size, mine), (size, theirs))]
    sample = f"median of {turns}, {size // MIB} MiB"
    record("root over mutual TLS, verified and mounted", round(rate[0]), "MiB/s", None, "curl, same certificate", round(rate[1]),
           sample=sample)
    # Each against its neighbour in time: the machine's other load changes.
    share = statistics.median(100 * other / own for own, other in zip(mine, theirs))
    record("  its rate, by that of curl", round(share), "%", at_least=80, sample=sample)
    # What the kernel has for it besides, boot.py measures in a guest.
    record("  memory of the process, without the image", round(peak, 1), "MiB", 8, sample=f"most of {turns}")


if __name__ == "__main__":
    inside(*sys.argv[1:])
