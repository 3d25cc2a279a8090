# A VLAN of a bridge of two links.
wire eth0 eth1
sw ip link add link p0 name p0.7 type vlan id 7
dhcp p0.7 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bridge = { name = "br0", ports = ["eth0", "eth1"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "br0" }
dhcp4 = true
TOML
node
ended 0
has vlan7 "inet 192.0.2.1"
has eth0 "master br0"
