#!/bin/sh
# Makes what the demonstration of compose.yaml is made of, unless it is there: a server certificate, certificates of clients,
# the proof key, and kong.yml with the CA in it. The keys of the CAs are not kept. An argument is a folder that stands for /.
set -eu
umask 077

here=$(dirname "$0")
root=${1:-}
kong=$root/etc/kong tls=$root/etc/tls handoff=$root/run/mtls-auth clients=$root/clients
# As which the image of the shim runs; Kong has the group beside its own.
shim=65532

# kong.yml is written last.
[ -e "$kong/kong.yml" ] && [ -e "$clients/alice.key" ] && exit 0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/openssl.cnf" <<'CONFIG'
[req]
distinguished_name = name
prompt = no
[name]
CN = overridden
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = serverAuth
subjectAltName = DNS:payments.example.com, DNS:www.example.com, DNS:localhost
[client]
basicConstraints = critical, CA:FALSE
extendedKeyUsage = clientAuth
CONFIG

# certificate FILE NAME SECTION [CA]: makes FILE.crt and FILE.key.
certificate() {
  openssl req -x509 -config "$work/openssl.cnf" -extensions "$3" -subj "/CN=$2" -days 365 \
    -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout "$work/$1.key" -out "$work/$1.crt" \
    ${4:+-CA "$work/$4.crt" -CAkey "$work/$4.key"} 2>"$work/said" || {
    cat "$work/said" >&2
    exit 1
  }
}
certificate ca "Demonstration CA" ca
certificate alice alice client ca
certificate other-ca "Demonstration CA" ca
certificate mallory alice client other-ca
certificate server-ca "Demonstration server CA" ca
certificate server payments.example.com server server-ca

# put MODE OWNER FILE FOLDER: moves a file there. Only root can give files away.
put() {
  mode=$1 owner=$2
  shift 2
  chmod "$mode" "$1"
  [ "$(id -u)" != 0 ] || chown "$owner" "$1"
  mv -f "$1" "$2"
}
mkdir -p "$kong" "$tls" "$handoff" "$clients"
owner=$(stat -c %u:%g "$clients")
for name in alice mallory; do
  put 644 "$owner" "$work/$name.crt" "$clients/"
  put 600 "$owner" "$work/$name.key" "$clients/"
done
put 644 "$owner" "$work/server-ca.crt" "$clients/"
put 644 0:0 "$work/server.crt" "$tls/"
put 640 "0:$shim" "$work/server.key" "$tls/"
# Who runs already has the one that is there.
if ! [ -e "$handoff/proof.key" ]; then
  openssl rand -base64 32 >"$work/proof.key"
  put 640 "0:$shim" "$work/proof.key" "$handoff/"
fi
sed 's/^/    /' "$work/ca.crt" >"$work/indented"
sed -e '/(the CA that certificates.sh makes)/{' -e "r $work/indented" -e 'd' -e '}' "$here/kong.yml" >"$work/kong.yml"
put 644 0:0 "$work/kong.yml" "$kong/"

chmod 755 "$kong" "$tls"
# The socket that Kong's plugin server makes there is of the shim's group. In this order: the bit is not set for a group that
# is not one's own.
chmod 2770 "$handoff"
[ "$(id -u)" != 0 ] || chgrp "$shim" "$handoff"
