//! The command line: Go flag syntax (`session-and-api.md` 1) in front of clap.
