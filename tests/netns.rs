//! (placeholder target until its first test lands)
