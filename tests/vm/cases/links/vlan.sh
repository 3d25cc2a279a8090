# A trunk: untagged frames have a DHCP server of another network, VLAN 7 the right one.
wire eth0
dhcp p0 198.51.100
sw ip link add link p0 name p0.7 type vlan id 7
dhcp p0.7 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
vlan = { name = "vlan7", id = 7, on = "eth0" }
dhcp4 = true
TOML
node
ended 0
has vlan7 "inet 192.0.2.1"
has vlan7 "vlan protocol 802.1Q id 7"
lacks eth0 "inet "
pings 192.0.2.1
file /run/systemd/network/70-imprint-vlan7.netdev "Id=7"
file /run/systemd/network/70-imprint-eth0.network "VLAN=vlan7"
file /run/NetworkManager/system-connections/imprint-vlan7.nmconnection "parent=eth0"
