# The kernel asks for routers when the partner has agreed, and not when nobody hears it: the address is there soon afterwards.
wire eth0
lacp p0
sw ip link add link trunk name trunk.7 type vlan id 7
sw ip addr add 2001:db8:7::1/64 dev trunk.7
sw ip link set trunk.7 up
sw sysctl -q -w net.ipv6.conf.all.forwarding=1
cat >/tmp/sw-radvd <<'CONF'
interface trunk.7 { AdvSendAdvert on; MinRtrAdvInterval 200; MaxRtrAdvInterval 600; prefix 2001:db8:7::/64 { }; };
CONF
sw radvd -C /tmp/sw-radvd -p /tmp/sw-radvd-pid -m none
payload <<'TOML'
[[network]]
match = { name = "eth0" }
[[network]]
bond = { name = "bond0", mode = "802.3ad", ports = ["eth0"] }
[[network]]
vlan = { name = "vlan7", id = 7, on = "bond0" }
slaac = true
TOML
node
ended 0
has vlan7 "inet6 2001:db8:7::ff:fe00:0/64"
lacks bond0 "inet6 2001"
