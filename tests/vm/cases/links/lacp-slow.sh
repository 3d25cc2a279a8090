# The record asks for slow LACP.
wire eth0
lacp p0
dhcp trunk 192.0.2
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", lacp_rate = "slow", ports = ["eth0"] }
dhcp4 = true
TOML
node
ended 0
has bond0 "inet 192.0.2.1"
has bond0 "lacp_rate slow"
