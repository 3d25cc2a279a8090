//! Acts on a plan: clock, random pool, network. Decides nothing; every choice was made in [`crate::plan`].

pub mod clock;
pub mod entropy;
pub mod image;
pub mod network;
pub mod root;
pub mod spent;

pub mod file;
