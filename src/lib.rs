//! The device agent `reagent`, as a library: the binary only parses, runs and exits.
//!
//! Modules and what each owns: `docs/ARCHITECTURE.md`.

pub mod access;
pub mod agent;
pub mod app;
pub mod backend;
pub mod cli;
mod crash;
pub mod durable;
pub mod engine;
pub mod exit;
pub mod flock;
pub mod instance;
pub mod journal;
pub mod link;
mod local_time;
pub mod logs;
mod os;
pub mod rpc;
pub mod service;
pub mod settings;
pub mod store;
pub mod system;
pub mod transfer;
pub mod update;
pub mod work;
