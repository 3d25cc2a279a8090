# A bridge of a VLAN, as a hypervisor has it.
wire eth0
sw ip link add link p0 name p0.7 type vlan id 7
dhcp p0.7 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
vlan = { name = "vlan7", id = 7, on = "eth0" }
[[network]]
bridge = { name = "br0", ports = ["vlan7"] }
dhcp4 = true
TOML
node
ended 0
has br0 "inet 192.0.2.1"
has vlan7 "master br0"
lacks vlan7 "inet "
pings 192.0.2.1
file /run/systemd/network/70-imprint-vlan7.network "Bridge=br0"
file /run/systemd/network/70-imprint-br0.netdev "Kind=bridge"
