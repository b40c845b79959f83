# The builder of `make build-all-docker`: Rust with the standard libraries of every platform of the file targets that has a
# port, and zig as C compiler and linker for all of them.
ARG BASE=rust:1.95-slim-bookworm
FROM $BASE
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git python3 python3-venv && rm -rf /var/lib/apt/lists/*
RUN rustup target add x86_64-unknown-linux-musl aarch64-unknown-linux-musl armv7-unknown-linux-musleabihf \
    arm-unknown-linux-musleabi armv5te-unknown-linux-musleabi x86_64-pc-windows-gnu
WORKDIR /app/reagent
COPY . .
RUN scripts/setup build x86_64-unknown-linux-musl
ENTRYPOINT ["scripts/build-all"]
