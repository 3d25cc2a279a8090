# A bond whose switch has no LACP does not delay a link that works.
wire eth0 eth1 eth2
dhcp p2 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
match = { name = "eth1" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0", "eth1"] }
dhcp4 = true
[[network]]
match = { name = "eth2" }
dhcp4 = true
TOML
node
ended 0
has eth2 "inet 192.0.2.1"
lacks bond0 "inet "
# It may agree later, so the next stage makes it as well.
file /run/systemd/network/70-imprint-bond0.network "DHCP=ipv4"
file /run/systemd/network/70-imprint-bond0.netdev "Mode=802.3ad"
