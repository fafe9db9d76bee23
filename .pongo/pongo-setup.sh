# Sourced by Pongo in its container, before the specs run: they find the programs in target/release.
command -v openssl >/dev/null || { apt-get update && apt-get install -y openssl; }
for program in mtls-auth tls-shim; do
  "/kong-plugin/target/release/$program" --version || echo "spec/README.md says how to build $program for Pongo" >&2
done
