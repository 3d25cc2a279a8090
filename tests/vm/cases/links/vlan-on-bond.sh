# VLAN on a bond with LACP, and jumbo frames below.
wire eth0 eth1
sw ip link set p0 mtu 9000
sw ip link set p1 mtu 9000
lacp p0 p1
sw ip link set trunk mtu 9000
sw ip link add link trunk name trunk.7 type vlan id 7
dhcp trunk.7 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0", "eth1"] }
mtu = 9000
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
dhcp4 = true
mtu = 8000
TOML
node
ended 0
has vlan7 "inet 192.0.2.1"
has vlan7 "mtu 8000"
has bond0 "mtu 9000"
has eth1 "mtu 9000"
lacks bond0 "inet "
file /run/systemd/network/70-imprint-bond0.network "VLAN=vlan7"
pings -s 7900 -M "do" 192.0.2.1 || fail "no jumbo frames"
