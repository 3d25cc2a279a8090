# A link of that name is there, and is something else: one line, the ports as they were, and nothing of what was there is changed.
wire eth0
ip link add bond0 address 02:00:00:00:09:09 type veth peer name other
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "active-backup", ports = ["eth0"] }
dhcp4 = true
TOML
node
ended 16
says "bond bond0 cannot be made: there is a link bond0 already (veth); remove that link, or give the one of the payload another name"
has bond0 "veth"
lacks eth0 "UP"
