# The edge on Debian slim, as nobody in particular. Builds from a clean checkout:
#
#   docker build -t atoll .
#   docker run --rm -p 8080:8080 atoll run --origin http://host.docker.internal:3000 --listen 0.0.0.0:8080

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin atoll \
    && install -D -m 755 target/release/atoll /out/usr/bin/atoll \
    && strip --strip-debug /out/usr/bin/atoll \
    && install -D -m 644 config/atoll.toml /out/etc/atoll/atoll.toml \
    && sed -i 's/^address = "127\.0\.0\.1:/address = "0.0.0.0:/' /out/etc/atoll/atoll.toml \
    && install -D -m 644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt

FROM debian:bookworm-slim
COPY --from=build /out/ /
# No name, no home, no shell needed; nothing is written but what stdout takes. The configuration in the
# image is config/atoll.toml on every address: mount your own over it.
USER 10001:10001
# Plain, TLS, and what a scraper reads where the configuration has a [watch] listener. The admin
# listener stays on loopback, inside.
EXPOSE 8080 8443 9090
# Asks /readyz on the admin listener; ATOLL_ADMIN says where it is, if not at the default.
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s CMD ["atoll", "status"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["atoll"]
CMD ["run", "--config", "/etc/atoll/atoll.toml"]
