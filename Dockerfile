# The builder of `make build-all-docker`: Rust with the standard libraries of the platforms of the file targets, and zig as C
# compiler and linker for all of them.
ARG BASE=rust:1.95-slim-bookworm
FROM $BASE
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev git python3 python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /app/reagent
# What can be had once and for all. A platform that lacks something is no failure here: build-all asks again, and names it.
COPY targets ./
COPY scripts/platform scripts/setup scripts/
RUN while read -r platform || [ -n "$platform" ]; do \
      scripts/platform "$platform" || [ $? -eq 3 ] || exit 1; \
    done <targets && scripts/setup build "$(rustc --print host-tuple)"
COPY . .
ENTRYPOINT ["scripts/build-all"]
