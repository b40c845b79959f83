//! The procedures exposed to the studio: one table, one file per group.
