//! Who calls, and may they (`session-and-api.md` 6.2 and 10).
