# The module of bonds makes bond0 when it is loaded, where nobody tells it otherwise: the agent leaves none behind, and may have its name.
for name in bond7 bond0; do
    reset
    modprobe -r bonding 2>/dev/null || true
    find /etc/modprobe.d /lib/modprobe.d /usr/lib/modprobe.d -type f -exec grep -l max_bonds {} + 2>/dev/null | xargs -r rm -f
    wire eth0
    dhcp p0 192.0.2
    payload <<TOML
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "$name", mode = "active-backup", ports = ["eth0"] }
dhcp4 = true
TOML
    node
    ended 0
    has "$name" "bond mode active-backup"
    has "$name" "inet 192.0.2.1"
    [ "$(cat /sys/class/net/bonding_masters)" = "$name" ] || fail "there are $(cat /sys/class/net/bonding_masters)"
done
