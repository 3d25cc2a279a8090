# Two VLANs on one trunk: each with its address.
wire eth0
for id in 7 8; do
    sw ip link add link p0 name "p0.$id" type vlan id "$id"
    sw ip addr add "192.0.$id.1/24" dev "p0.$id"
    sw ip link set "p0.$id" up
done
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
[[network]]
vlan = { name = "vlan8", id = 8, on = "trunk" }
addresses = ["192.0.8.2/24"]
TOML
node
ended 0
has eth0 "mtu 1400"
has vlan7 "mtu 1300"
has vlan7 "inet 192.0.7.2/24"
pings 192.0.7.1
