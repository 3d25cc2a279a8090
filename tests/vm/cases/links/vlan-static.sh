# A static address on a VLAN, with MTUs, and the trunk found by its hardware address.
wire eth0
sw ip link add link p0 name p0.7 type vlan id 7
sw ip addr add 192.0.7.1/24 dev p0.7
sw ip link set p0.7 up
payload <<'TOML'
[[network]]
match = { mac = "02:00:00:00:00:00" }
label = "trunk"
mtu = 1400
[[network]]
vlan = { name = "vlan7", id = 7, on = "trunk" }
addresses = ["192.0.7.2/24"]
routes = [{ to = "default", via = "192.0.7.1" }]
mtu = 1300
TOML
node
ended 0
has eth0 "mtu 1400"
has vlan7 "mtu 1300"
has vlan7 "inet 192.0.7.2/24"
pings 192.0.7.1
