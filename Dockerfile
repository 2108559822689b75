# The images of Annals. Needs BuildKit, which is the default of Docker since version 23.
#
#     docker build -t annals:latest .                                     the service: one program, no shell
#     docker build -t annals:development --target development .           with a PostgreSQL inside, to try Annals out
#
# One container of the development image is a working Annals. Its events are in the volume:
#
#     docker run -p 8080:8080 -v annals:/var/lib/postgresql/data annals:development
#
# If other containers use its name as the host: -e ANNALS_HOSTS=NAME
#
# The release workflow builds both from the portable programs instead of the sources: a build context with the name of a
# stage replaces that stage.
#
#     docker buildx build --build-context binaries=FOLDER ...
#
# FOLDER/amd64 and FOLDER/arm64 hold `annals` and THIRD-PARTY-NOTICES.
#
# Base images are pinned by digest. `scripts/pin-images` brings the digests up to date.

# --- Build from the sources ---

FROM rust:1.95-bookworm@sha256:6258907abe69656e41cd992e0b705cdcfabcbbe3db374f92ed2d47121282d4a1 AS build
WORKDIR /src
COPY . .

# The caches outlive the layer, so a change of the sources compiles Annals alone and not its dependencies.
# - Cargo decides by modification times what to compile again, and a copied file may be older than what another checkout
#   has left in the cache. `touch` makes every copied file newer: the sources, and the files that they embed.
# - The cache is not part of the image, so the program is copied out of it.
# - `sharing=locked` makes two builds at the same time use the cache one after the other.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    find . -path ./target -prune -o -type f -exec touch {} + \
    && cargo build --profile dist --locked --package annals --bin annals \
    && cp target/dist/annals /annals \
    && scripts/third-party-notices "$(rustc --print host-tuple)" >/THIRD-PARTY-NOTICES

FROM scratch AS binaries
ARG TARGETARCH
COPY --from=build /annals /THIRD-PARTY-NOTICES /${TARGETARCH}/

# --- The root file system of the service image ---

# The C library of the image is the one of this Debian.
FROM debian:bookworm-slim@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251 AS root
ARG TARGETARCH
# The newest certificates are wanted, so the package has no version. APT checks its signature.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
COPY --from=binaries --chmod=755 /${TARGETARCH}/annals /annals
COPY --from=binaries /${TARGETARCH}/THIRD-PARTY-NOTICES /notices/
COPY LICENSE /notices/
COPY scripts/build-image-root /build-image-root
RUN /build-image-root /annals /notices /image-root

# --- The development image ---

# PostgreSQL and Annals in one container. Annals runs PostgreSQL as it does on any machine without a configured
# database: with fsync, and reachable through a Unix socket only.
FROM postgres:16-bookworm@sha256:efedf3595f1d6f415c08568ba171029bf54052e754cc9f030e3f2412b21f3d67 AS development
ARG TARGETARCH

LABEL org.opencontainers.image.title="Annals with PostgreSQL, for development" \
      org.opencontainers.image.description="An event store for any service, with its database in the same container" \
      org.opencontainers.image.licenses="MIT"

COPY --from=binaries --chmod=755 /${TARGETARCH}/annals /usr/local/bin/annals
COPY --from=binaries --chmod=644 /${TARGETARCH}/THIRD-PARTY-NOTICES /usr/share/doc/annals/
COPY --chmod=644 LICENSE /usr/share/doc/annals/

# The user `postgres` of the base image.
USER 999:999

# The base image declares the folder above as a volume, and it belongs to the user `postgres`. With a folder elsewhere,
# every container would also get an empty volume here. Every user can write to the volume itself, which Annals refuses
# for its data, so it creates a private folder in it.
ENV ANNALS_DATA_DIR=/var/lib/postgresql/data/annals \
    ANNALS_PG_BIN=/usr/lib/postgresql/16/bin \
    ANNALS_LISTEN=0.0.0.0:8080 \
    ANNALS_ALLOW_ANONYMOUS=true
EXPOSE 8080

# The base image asks for SIGINT, the signal of PostgreSQL. Annals stops in order at SIGTERM, and then stops PostgreSQL.
STOPSIGNAL SIGTERM

HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/annals", "healthcheck"]

ENTRYPOINT ["/usr/local/bin/annals"]
CMD ["serve"]

# --- The service image ---

FROM scratch AS service

LABEL org.opencontainers.image.title="Annals" \
      org.opencontainers.image.description="An event store for any service: plain HTTP and JSON, on PostgreSQL" \
      org.opencontainers.image.licenses="MIT"

COPY --from=root /image-root /

# The user `nonroot`, as a number, because Kubernetes' runAsNonRoot cannot look up a name.
USER 65532:65532

# The default is loopback, which cannot be reached from outside the container.
ENV ANNALS_LISTEN=0.0.0.0:8080
EXPOSE 8080

# The program itself requests /readyz, since the image has no shell and no curl. The start period is for migrations.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/annals", "healthcheck"]

ENTRYPOINT ["/usr/local/bin/annals"]
CMD ["serve"]
