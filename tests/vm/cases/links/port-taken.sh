# A port that somebody else's bridge has stays there.
wire eth0
ip link add mine type bridge
ip link set eth0 master mine
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "active-backup", ports = ["eth0"] }
dhcp4 = true
TOML
node
ended 16
says "eth0 cannot be a port of bond bond0: it is one of mine; take it out there"
has eth0 "master mine"
gone bond0
