# A bond is made, the VLAN on it cannot be: the bond is taken apart again, and the other link is used.
wire eth0 eth1
ip link add vlan7 type veth peer name other
dhcp p1 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "active-backup", ports = ["eth0"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
dhcp4 = true
[[network]]
match = { name = "eth1" }
dhcp4 = true
TOML
node
ended 0
has eth1 "inet 192.0.2.1"
gone bond0
lacks eth0 "UP"
lacks eth0 "master"
[ ! -e /run/systemd/network/70-imprint-bond0.netdev ] || fail "the next stage would make the bond"
