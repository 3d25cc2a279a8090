# systemd-networkd takes over VLAN on LACP bond below a bridge: the same links, the same lease, and nothing goes down in between.
wire eth0 eth1
lacp p0 p1
sw ip link add link trunk name trunk.7 type vlan id 7
dhcp trunk.7 192.0.2
udevd
payload <<'TOML'
[[network]]
match = { mac = "02:00:00:00:00:00" }
label = "one"
[[network]]
match = { mac = "02:00:00:00:00:01" }
label = "two"
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["one", "two"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
[[network]]
bridge = { name = "br0", ports = ["vlan7"] }
dhcp4 = true
TOML
node
ended 0
remember
networkd
trap 'cat /tmp/sw-networkd; grep -H STATE /run/systemd/netif/links/*' EXIT
for link in eth0 eth1 bond0 vlan7 br0; do until_true 20 managed "$link"; done
unchanged br0
