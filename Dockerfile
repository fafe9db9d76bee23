# Two images: `docker build --target kong .` is Kong with mtls-auth, `docker build --target shim .` is tls-shim.

# Programs that are built on Debian 12 need glibc 2.34 (`objdump -T`). Both images below have a newer one.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# What --version says that they are built from: the context has no folder of git's.
ARG COMMIT
ENV KONG_MTLS_AUTH_COMMIT=${COMMIT}
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --package mtls-auth --package tls-shim \
    && install -D --target-directory=/out target/release/mtls-auth target/release/tls-shim

# The newest version of Kong that is open source. It is Ubuntu 24.04, with glibc 2.39.
FROM kong:3.9 AS kong
COPY --from=build /out/mtls-auth /usr/local/bin/mtls-auth
# Fails the build where it would not run.
RUN ["/usr/local/bin/mtls-auth", "--version"]
# What kong-conf/kong.conf says, but for what depends on where Kong's configuration is and who is in front of it. As it is,
# CAs stand in the plugin's configuration, and consumers are found by username.
ENV KONG_PLUGINS=bundled,mtls-auth \
    KONG_PLUGINSERVER_NAMES=mtls-auth \
    KONG_PLUGINSERVER_MTLS_AUTH_START_CMD=/usr/local/bin/mtls-auth \
    KONG_PLUGINSERVER_MTLS_AUTH_QUERY_CMD="/usr/local/bin/mtls-auth -dump --protocol protobuf" \
    KONG_NGINX_PROXY_LARGE_CLIENT_HEADER_BUFFERS="8 64k"

# glibc, libgcc and the CAs of servers on the Internet; no shell, no other program. It runs as user and group 65532.
FROM gcr.io/distroless/cc-debian13:nonroot AS shim
COPY --from=build /out/tls-shim /usr/local/bin/tls-shim
RUN ["/usr/local/bin/tls-shim", "--version"]
EXPOSE 8443
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s \
    CMD ["/usr/local/bin/tls-shim", "ready", "--config", "/etc/tls-shim/shim.yml"]
ENTRYPOINT ["/usr/local/bin/tls-shim"]
CMD ["--config", "/etc/tls-shim/shim.yml"]
