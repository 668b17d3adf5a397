//! The engine as a whole, in a world of its own: see `world.rs` for the driver and `facts.rs` for what is
//! checked after every step of every test here.

mod contention;
mod eta;
mod facts;
mod fleet;
mod frozen;
mod hints;
mod interest;
mod learned;
mod random;
mod requests;
mod retries;
mod scaling;
mod starts;
mod stopping;
mod transitions;
mod world;
