# The image of any one binary of the shop: docker build --build-arg BIN=order-service .
#
# Everything is compiled in stages that do not depend on BIN, so all images together cost one build. Needs no BuildKit.

# The manifests and what is vendored, with an empty crate behind each: they change with the dependencies and not with the
# code.
FROM rust:1.95-bookworm AS manifests
WORKDIR /shop
COPY . .
RUN find . -type f ! -name Cargo.toml ! -name Cargo.lock ! -path './vendor/*' -delete \
    && find . -mindepth 1 -type d -empty -delete \
    && for manifest in */Cargo.toml; do \
        mkdir -p "${manifest%/*}/src" && echo '//! Empty.' > "${manifest%/*}/src/lib.rs"; \
    done

# The dependencies: this layer is kept until a manifest changes.
FROM rust:1.95-bookworm AS build
WORKDIR /shop
# Whole-program optimisation takes minutes for each binary and gives these little; symbols stay, for backtraces.
ENV CARGO_PROFILE_RELEASE_LTO=false CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_STRIP=debuginfo
COPY --from=manifests /shop .
RUN cargo build --release --locked --workspace --exclude xtask --exclude harness --exclude bench --exclude e2e \
    && rm -rf */src

# The shop's own crates. `touch`, because cargo goes by time and these files are older than the empty crates just built.
COPY . .
RUN find . -name '*.rs' -not -path './target/*' -not -path './vendor/*' -exec touch {} + \
    && cargo build --release --locked --workspace --exclude xtask --exclude harness --exclude bench --exclude e2e --bins \
    && mkdir -p /out/data \
    && find target/release -maxdepth 1 -type f -executable -exec cp {} /out/ \;

# No shell, no package manager, no root.
FROM gcr.io/distroless/cc-debian12:nonroot
ARG BIN
COPY --from=build /out/${BIN} /app/service
COPY --from=build --chown=65532:65532 /out/data /data
# One heap for all threads: glibc's heap for each keeps megabytes that nobody uses.
ENV DATA_DIR=/data MALLOC_ARENA_MAX=1
USER 65532
ENTRYPOINT ["/app/service"]
