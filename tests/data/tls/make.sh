#!/bin/sh
# Makes the certificates here that no other tool of the tests can make: signed with SHA-1, and with keys of 1024 bits.
# They are valid from 2029 to 2039, whenever this runs. Needs openssl 3. The other two come from a site whose CA was made
# anew: the server's issuer is a PrintableString, the CA's name a UTF8String; and one serial number has 36 octets.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/cnf" <<CNF
[ca]
default_ca = lab
[lab]
database = $work/index
new_certs_dir = $work
rand_serial = yes
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = supplied
[root]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = IP:127.0.0.1
[req]
distinguished_name = name
[name]
CNF
: >"$work/index"
ec='-newkey ec -pkeyopt ec_paramgen_curve:P-256'
rsa='-newkey rsa:1024'
# NAME KIND-OF-KEY CN
request() {
    # shellcheck disable=SC2086 # several words
    openssl req -new -nodes -config "$work/cnf" $2 -keyout "$work/$1.key" -out "$work/$1.csr" -subj "/CN=$3" 2>/dev/null
}
# NAME DIGEST EXTENSIONS ISSUER…
sign() {
    name=$1 digest=$2 extensions=$3
    shift 3
    openssl ca -batch -config "$work/cnf" -md "$digest" -extensions "$extensions" -startdate 20290101000000Z \
        -enddate 20391230000000Z -in "$work/$name.csr" -notext -out "$work/$name.pem" "$@" 2>/dev/null
    openssl x509 -in "$work/$name.pem" -outform DER -out "$name.der"
}
root() { request "$1" "$2" "$3"; sign "$1" sha256 root -selfsign -keyfile "$work/$1.key"; }
# NAME KIND-OF-KEY DIGEST CA
server() {
    request "$1" "$2" 'est server'
    sign "$1" "$3" server -cert "$work/$4.pem" -keyfile "$work/$4.key"
    cp "$work/$1.key" "$1.key"
}
root lab-ca "$ec" 'Lab CA'
server sha1-server "$ec" sha1 lab-ca
server rsa1024-server "$rsa" sha256 lab-ca
root rsa1024-ca "$rsa" 'Small CA'
server below-rsa1024-server "$ec" sha256 rsa1024-ca
