//! Host facts: statistics, platform strings (`session-and-api.md` 1.5, 7.2).
