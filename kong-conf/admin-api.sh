#!/usr/bin/env bash
# The entities of kong.yml as calls of the Admin API, for a Kong with a database. It may be run again: each call says what shall
# be there.
#
#   ADMIN_URL=http://127.0.0.1:8001 ./admin-api.sh ca.pem
#
# A route is open to everybody until its plugins count, in each worker of each node. So a new service begins disabled.
set -euo pipefail

ca_pem=$(<"${1:?usage: admin-api.sh CA.pem}")
admin=${ADMIN_URL:-http://127.0.0.1:8001}
# Seconds until all nodes know what has been written: Kong's db_update_frequency and worker_state_update_frequency, 5 each, and
# one more.
settle=${SETTLE:-11}

put() {
  local said
  said=$(curl -sS --fail-with-body -X PUT "$admin/$1" -H 'Content-Type: application/json' -d "$2") ||
    { echo "PUT /$1: $said" >&2; exit 1; }
}

# Prints the entity, or nothing where there is none.
get() {
  local said
  said=$(curl -sS -w '\n%{http_code}' "$admin/$1")
  case ${said##*$'\n'} in
    200) echo "${said%$'\n'*}" ;;
    404) ;;
    *) echo "GET /$1: $said" >&2; return 1 ;;
  esac
}

service=$(get services/payments)
plugin=$(get routes/payments/plugins/9e2f6a57-1f7b-4a53-a2a1-2d1c6f0e8b02)
is_enabled=false
[[ $service != *'"enabled":true'* ]] || is_enabled=true
if "$is_enabled" && [ -z "$plugin" ]; then
  echo "The service payments is there and enabled: disable it, or its new route is open at first." >&2
  exit 1
fi

put ca_certificates/6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d "{\"cert\": \"${ca_pem//$'\n'/\\n}\"}"
put consumers/alice '{"username": "alice"}'
# What the plugin does not keep from the upstreams of other routes.
put plugins/0d4bd0ef-5f0c-4a8b-9b9e-7c7b1f1f4a10 '{"name": "request-transformer", "config": {"remove": {"headers": ["Client-Cert", "Client-Cert-Chain", "Client-Cert-Proof"]}}}'

put services/payments '{"name": "payments", "url": "http://127.0.0.1:9000", "enabled": '$is_enabled'}'
put services/payments/routes/payments '{"name": "payments", "snis": ["payments.example.com"], "hosts": ["payments.example.com"], "paths": ["/"]}'
# The guard: where the plugin server does not answer, Kong would let requests pass. This does not.
guard='"-- kong-mtls-auth guard v1: Kong lets requests pass while the plugin server does not answer. This does not.\nif not (kong.client.get_credential() or kong.client.get_consumer()) then\n  return kong.response.error(503, \"Authentication is not available\")\nend\n"'
put routes/payments/plugins/5b0b1b0c-3f4e-4c06-8d52-8f9c4d1c7a01 '{"name": "post-function", "config": {"access": ['"$guard"']}}'
put routes/payments/plugins/9e2f6a57-1f7b-4a53-a2a1-2d1c6f0e8b02 '{"name": "mtls-auth", "config": {"ca_certificates": ["6ae7a1a4-0cf0-4b6a-9d3f-3f7c5a0b1c2d"]}}'

if ! "$is_enabled"; then
  sleep "$settle"
  put services/payments '{"name": "payments", "url": "http://127.0.0.1:9000", "enabled": true}'
fi
