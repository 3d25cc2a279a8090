"""What imprint adds to an image of each builder, beside what others would add to the same image by Debian's packages: openssl and
curl with their shell script, Ignition, clevis. Boots nothing."""

import gzip
import os
import pathlib
import re
import subprocess
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1024 * 1024
# What each needs in an image to do a part of imprint's work: programs and scripts by their place in Debian's packages.
PEERS = {
    "openssl + curl": ("usr/bin/openssl", "usr/bin/curl", "etc/ssl/openssl.cnf"),
    "Ignition": ("usr/bin/ignition", "usr/lib/ignition/*", "usr/lib/dracut/modules.d/*ignition*/*"),
    "clevis with tang": ("usr/bin/clevis*", "usr/bin/jose", "usr/bin/curl", "usr/bin/luksmeta"),
}
# Whoever fetches something over a network needs them, imprint or another.
DRIVERS = re.compile(r"(^|/)lib/(modules|firmware)(/|$)")


def entries(archive):
    """{name: bytes that tell one file from another} of an initramfs in newc form, packed by gzip or not at all."""
    data = pathlib.Path(archive).read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    found, at = {}, 0
    while data[at:at + 6] in (b"070701", b"070702"):
        fields = [int(data[at + 6 + 8 * n:at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110:at + 110 + name_size - 1].decode(errors="surrogateescape")
        body = at + 110 + name_size + -(110 + name_size) % 4
        at = body + size + -size % 4
        if name != "TRAILER!!!":
            found[name] = mode.to_bytes(4, "big") + data[body:body + size]
    if data[at:].strip(b"\0"):
        raise ValueError(f"{archive}: no archive in newc form at byte {at}")
    return found


def packed(contents, level="-19"):
    """Their size, and what zstd makes of them."""
    together = b"".join(contents)
    done = subprocess.run(["zstd", level, "-q", "-c"], input=together, check=True, stdout=subprocess.PIPE)
    return len(together) / MIB, len(done.stdout) / MIB


def closure(folder, patterns, there):
    """The files that match, and the libraries that they need and that the image does not have: {name: bytes}."""
    wanted, found = [file for pattern in patterns for file in sorted(folder.glob(pattern))], {}
    names = {pathlib.PurePath(name).name for name in there}
    libraries = {}
    for place in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib64", "usr/lib/x86_64-linux-gnu/systemd"):
        for file in folder.glob(f"{place}/*.so*"):
            libraries.setdefault(file.name, file)
    while wanted:
        file = wanted.pop()
        if not file.is_file() or file.name in found:
            continue
        found[file.name] = file.read_bytes()
        if found[file.name][:4] != b"\x7fELF":
            continue
        dynamic = subprocess.run(["objdump", "-p", str(file)], check=True, stdout=subprocess.PIPE, text=True).stdout
        for library in re.findall(r"NEEDED +(\S+)", dynamic):
            if library in names:
                continue
            if library not in libraries:
                raise FileNotFoundError(f"{file}: no package has its {library}")
            wanted.append(libraries[library])
    return found


# The scripts that build an image, with their words. A bare image is not built by others, and mkinitcpio not on Debian.
BARE = "imprint-host image (bare)"
BUILDERS = {"dracut with systemd": ("dracut-image", "systemd"), "dracut without systemd": ("dracut-image", "plain"),
            "initramfs-tools": ("initramfs-tools-image", "list"), BARE: None}


def build(builder, kernel, image, without):
    """{name: bytes} without drivers. A bare image without imprint is none, so that all that it has counts."""
    if builder == BARE:
        return {} if without else bare(kernel, image)
    script, kind = BUILDERS[builder]
    subprocess.run([str(ROOT / "scripts" / script), kind, kernel, str(image)], check=True, cwd=ROOT,
                   env={**os.environ, "WITHOUT_IMPRINT": "yes" if without else "", "IMPRINT_SITE": ""})
    return {name: data for name, data in entries(image).items() if not DRIVERS.search(name)}


def bare(kernel, image):
    """Nothing is added to it: a shell is something that only tests need."""
    version = (pathlib.Path(kernel) / "version").read_text().strip()
    subprocess.run([str(ROOT / "dist/x86_64/imprint-host"), "image", "--kernel-modules", f"{kernel}/lib/modules/{version}",
                    "--agent", str(ROOT / "dist/x86_64/imprint"), "--compress", "none", "-o", str(image)],
                   check=True, stdout=subprocess.DEVNULL)
    return {name: data for name, data in entries(image).items() if not DRIVERS.search(name)}


def measure(record, runs):
    def script(*words):
        return subprocess.run([str(ROOT / "scripts" / words[0]), *words[1:]], check=True, stdout=subprocess.PIPE, text=True,
                              cwd=ROOT).stdout.strip()

    kernel, peers = script("kernel", "stable"), pathlib.Path(script("peers"))
    for builder in BUILDERS:
        with tempfile.TemporaryDirectory() as work:
            without, own = (build(builder, kernel, pathlib.Path(work) / str(which), which) for which in (True, False))
        added = {name: data[4:] for name, data in own.items() if without.get(name) != data}
        if not any(name.endswith("usr/bin/imprint") or name == "init" for name in added):
            raise ValueError(f"{builder}: the image has no imprint: {sorted(added)}")
        whole, small = packed(added[name] for name in sorted(added))
        for index, (peer, patterns) in enumerate(PEERS.items()):
            files = closure(peers, patterns, without)
            if len(files) < 2:
                raise FileNotFoundError(f"{peers} has no {peer}")
            theirs = packed((files[name] for name in sorted(files)), runs("-19", "-1"))[1]
            record(f"added to an image by {builder}, zstd -19" if index == 0 else "  the same", round(small, 3), "MiB", 1.5,
                   peer, round(theirs, 2))
        record("  unpacked", round(whole, 3), "MiB", sample=f"{len(added)} files")
