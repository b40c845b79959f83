//! The fleet server: an embedded WAMP router, the fleet store, the procedures that agents call, the procedures that
//! people call, a Docker registry beside it, and the command line.
//!
//! Two sides meet here. [`backend`] answers agents in the shapes of `session-and-api.md` 7; [`fleet`] answers people
//! (command line, later a web page) under `studio.…`. Both read and write one [`store`]. The command line
//! ([`command`]) is an ordinary WAMP client: it can do nothing that another client with the same credentials cannot.

pub mod api;
pub mod cli;
pub mod command;
pub mod exit;
pub mod keys;
pub mod operator;
pub mod plane;
pub mod serve;
pub mod store;

mod access;
mod admission;
mod backend;
mod bucket;
mod component;
mod delivery;
mod development;
mod fault;
mod fleet;
mod install;
mod registry;
mod rollout;
mod secret;
mod studio;
mod table;
