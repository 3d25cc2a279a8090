# The image has no bridge: one line that names the module.
wire eth0
ip link del br0 2>/dev/null || true
modprobe -r bridge 2>/dev/null || true
file=$(find /lib/modules -name 'bridge.ko*' | head -n 1)
mv "$file" /tmp/
trap 'mv /tmp/$(basename $file) $file' EXIT
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bridge = { name = "br0", ports = ["eth0"] }
dhcp4 = true
TOML
node
ended 16
says "br0 cannot be made, because the kernel's module bridge is not loaded, and could not be; put bridge into the image"
lacks eth0 "UP"
