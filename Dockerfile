# The image of Annals: one binary on a base without a shell. Needs BuildKit, which is Docker's default since version 23.
#
#     docker build -t annals:latest .

# --- Build ---

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .

# The caches outlive the layer: a change of the source compiles Annals alone, not its dependencies.
# - Cargo decides by modification times what is stale, and the copied files may be older than what another checkout left
#   in the cache. The `touch` makes our own sources always newer.
# - The cache is not part of the image, so the binary is copied out of it.
# - `locked`: two builds at the same time take turns.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked \
    && cp target/release/annals /annals

# --- Run ---

# The same Debian as in the build, so that the C library fits. It holds little more than that library and
# CA certificates.
FROM gcr.io/distroless/cc-debian12:nonroot

LABEL org.opencontainers.image.title="Annals" \
      org.opencontainers.image.description="An event store for any service: plain HTTP and JSON, on PostgreSQL" \
      org.opencontainers.image.licenses="MIT"

COPY --from=build /annals /usr/local/bin/annals

# The base image's user `nonroot`, as a number: Kubernetes' runAsNonRoot cannot look up a name.
USER 65532:65532

# The default is loopback, which nobody reaches from outside a container.
ENV ANNALS_LISTEN=0.0.0.0:8080
EXPOSE 8080

# The binary itself asks /readyz, since there is no shell and no curl. The start period leaves room for migrations.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/annals", "healthcheck"]

ENTRYPOINT ["/usr/local/bin/annals"]
CMD ["serve"]
