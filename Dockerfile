# The builder of `make build-all-docker`: Rust with the standard libraries of the platforms of the file targets, and zig as C
# compiler and linker for all of them.
ARG BASE=rust:1.95-slim-bookworm
FROM $BASE
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /app/reagent
# Once and for all. Nothing is ever linked for macOS here.
COPY targets ./
COPY scripts/platform scripts/setup scripts/
RUN while read -r platform || [ -n "$platform" ]; do \
      case $platform in '' | darwin/*) continue ;; esac; \
      scripts/platform "$platform" || exit 1; \
    done <targets && scripts/setup build "$(rustc --print host-tuple)"
COPY . .
ENTRYPOINT ["scripts/build-all"]
