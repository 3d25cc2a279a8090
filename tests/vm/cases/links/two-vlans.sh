# Two VLANs on one trunk, of which one is mute: the other is used, and the first does not delay it.
wire eth0
sw ip link add link p0 name p0.8 type vlan id 8
dhcp p0.8 192.0.8
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
vlan = { name = "vlan7", id = 7, on = "eth0" }
dhcp4 = true
[[network]]
vlan = { name = "vlan8", id = 8, on = "eth0" }
dhcp4 = true
TOML
node
ended 0
has vlan8 "inet 192.0.8.1"
has vlan7 "vlan protocol 802.1Q id 7"
lacks vlan7 "inet "
