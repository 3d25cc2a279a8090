#!/bin/sh
# The peer of every check-in figure: the shell script that people write instead, with openssl and curl. Same server,
# same names, same answer: a key, a CSR, cacerts, simpleenroll with HTTP Basic, both certificates verified.
# usage: baseline.sh CA.pem URL NAME:TOKEN SUBJECT SAN OUT
set -eu
ca=$1 url=$2 credentials=$3 subject=$4 san=$5 out=$6
umask 077
mkdir -p "$out"
openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$out/key.pem" 2>/dev/null
openssl req -new -key "$out/key.pem" -subj "$subject" -addext "subjectAltName=$san" -outform DER |
    openssl base64 -out "$out/csr.b64"
curl -sS --fail --cacert "$ca" "$url/cacerts" |
    openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out "$out/chain.pem"
curl -sS --fail --cacert "$ca" -u "$credentials" -H 'Content-Type: application/pkcs10' \
    -H 'Content-Transfer-Encoding: base64' --data-binary "@$out/csr.b64" "$url/simpleenroll" |
    openssl base64 -d | openssl pkcs7 -inform DER -print_certs -out "$out/cert.pem"
openssl verify -CAfile "$ca" -untrusted "$out/chain.pem" "$out/cert.pem" >/dev/null
